#!/bin/bash
# A filled cache answers instead of the teachers: no request is made, the bits are the same, with teachers gone as well.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

make_teachers 10
host nouns nouns/student
host others others/student
distil_recipe distil.yaml

say "without a cache, with one, from one"
expect 0 run.log "$limbeck" train distil.yaml
echo "cache_dir: cache" >>distil.yaml
expect 0 filling.log "$limbeck" train distil.yaml --output-dir filling
same_student run filling
[ "$(done_number filling.log teacher_requests)" -gt 0 ] || fail "nothing was asked"
expect 0 filled.log "$limbeck" train distil.yaml --output-dir filled
same_student run filled
[ "$(done_number filled.log teacher_requests)" -eq 0 ] || fail "teachers were asked again"
holds -s '[.[] | select(.loss)] | length == 40 and all(.[]; .teacher_requests == 0 and .cache_hit_ratio > 0.7)' \
    filled/metrics.jsonl # not 1: a sample that is asked about twice at once is looked up once

say "its command"
expect 0 stats.json "$limbeck" cache stats cache --json
holds '.entries == 110 and .stored_bytes > 0 and .file_bytes > 0' stats.json
expect 0 verify.log "$limbeck" cache verify cache
said verify.log "110 answers read, 0 bad"

say "another loss and another seed ask nothing new; another lane does"
expect 0 seed.log "$limbeck" train distil.yaml --output-dir seed --set seed=4
[ "$(done_number seed.log teacher_requests)" -eq 0 ] || fail "another order made new questions"
other_student run seed
expect 0 lane.log "$limbeck" train distil.yaml --output-dir lane --set targets=topk --set max_steps=5
[ "$(done_number lane.log teacher_requests)" -gt 0 ] || fail "answers to another question were taken"

say "with the teachers gone"
drop nouns
drop others
expect 0 offline.log "$limbeck" train distil.yaml --output-dir offline
said offline.log "teacher_offline teacher=nouns" "teacher_offline teacher=others" "answers come from the cache"
same_student run offline
[ "$(done_number offline.log teacher_requests)" -eq 0 ] || fail "somebody was asked"

say "and what the cache lacks is waited for"
start waits.log "$limbeck" train distil.yaml --output-dir waits --set targets=logits --set max_steps=5
await has waits.log teacher_lost
host nouns nouns/student
host others others/student
ends_with 0 "$job" waits.log

say "local teachers, before and after the cache is filled: nothing to warn of"
sed -i "s|url: \"${url[nouns]}\"|url: \"local:nouns/student\"|; s|url: \"${url[others]}\"|url: \"local:others/student\"|
    s|cache_dir: cache|cache_dir: cache2|" distil.yaml
for again in 1 2; do
    expect 0 "local$again.log" "$limbeck" train distil.yaml --output-dir "local$again"
    never_said "local$again.log" " warn " teacher_lost teacher_offline
    same_student run "local$again"
done
[ "$(done_number local1.log teacher_requests)" -gt 0 ] || fail "nothing was asked"
[ "$(done_number local2.log teacher_requests)" -eq 0 ] || fail "local teachers were asked again"

say "one that is gone is named, however its scheme is written"
sed -i 's|"local:|"LOCAL:|' distil.yaml
expect 0 local3.log "$limbeck" train distil.yaml --output-dir local3
mv nouns/student nouns/elsewhere
expect 1 gone.log timeout 60 "$limbeck" train distil.yaml --output-dir gone --set targets=topk --set max_steps=5
said gone.log "teacher nouns: there is no model at " "nouns/student any more"
