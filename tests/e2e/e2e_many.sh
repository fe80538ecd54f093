#!/bin/bash
# Several trainers at the same time against the same daemons, with one cache between them.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

make_teachers 10
host nouns nouns/student
host others others/student
distil_recipe distil.yaml
expect 0 run.log "$limbeck" train distil.yaml
echo "cache_dir: cache" >>distil.yaml

say "four at once: two of one recipe, another seed, another loss"
declare -A how=([twin1]=seed=3 [twin2]=seed=3 [seed]=seed=4 [loss]=loss_functions.1.weight=0.5) of=()
for name in "${!how[@]}"; do
    start "$name.log" "$limbeck" --threads 1 train distil.yaml --output-dir "$name" --set "${how[$name]}"
    of[$name]=$job
done
for name in "${!how[@]}"; do
    ends_with 0 "${of[$name]}" "$name.log"
    said "$name.log" "step 40/40"
    never_said "$name.log" " warn "
done

say "the same recipe gives the same bits, another does not"
same_student twin1 twin2
same_student twin1 run
other_student seed run
other_student loss run

say "the cache is whole, and each question has one answer in it"
expect 0 verify.log "$limbeck" cache verify cache
said verify.log "110 answers read, 0 bad"

say "what the daemons counted is what the trainers say they asked"
asked=$(done_number run.log teacher_requests)
for name in "${!how[@]}"; do
    asked=$((asked + $(done_number "$name.log" teacher_requests)))
done
answered=0
for teacher in nouns others; do
    count=$(curl -sf "${url[$teacher]}/metrics" |
        sed -n 's/^limbeckd_requests_total{.*endpoint="infer".*code="200"} //p')
    answered=$((answered + count))
done
[ "$answered" -eq "$asked" ] || fail "trainers asked $asked times, daemons answered $answered times"
