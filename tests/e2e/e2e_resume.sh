#!/bin/bash
# A run that is interrupted in any way goes on to the same bits, and a run folder is one trainer's.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

# Steps are whole in the journal: each once, in order, up to the last.
whole_journal() { # run folder
    holds -s '[.[] | select(.loss) | .step] == [range(1; 41)]' "$1/metrics.jsonl"
}

make_teachers 10
host nouns nouns/student
host others others/student
distil_recipe distil.yaml
# Eight micro-batches a step: an interruption may fall between them.
sed -i 's/^per_device_train_batch_size: 8/per_device_train_batch_size: 1/' distil.yaml
echo "gradient_accumulation_steps: 8" >>distil.yaml

say "undisturbed"
expect 0 run.log "$limbeck" train distil.yaml
whole_journal run
[ ! -e run/.unfinished-40 ] || fail "something half-written was left"

say "killed at steps that a seed picks"
RANDOM=20151
at=0
for round in 1 2 3 4; do
    at=$((at + 2 + RANDOM % 8))
    [ "$round" -eq 1 ] && how=() || how=(--resume)
    start "killed$round.log" "$limbeck" train distil.yaml --output-dir killed "${how[@]}"
    await reached killed "$at"
    murder "$job"
done
expect 0 killed.log "$limbeck" train distil.yaml --output-dir killed --resume
said killed.log "resumed checkpoint="
same_student run killed
whole_journal killed

say "interrupted, while computing and while waiting for a teacher"
start interrupted1.log "$limbeck" train distil.yaml --output-dir interrupted
await reached interrupted 5
kill -INT "$job"
ends_with 3 "$job" interrupted1.log
said interrupted1.log "stopping cleanly" "go on with the same command and --resume"
one_error <(grep -v 'stopping cleanly' interrupted1.log)
[ -d interrupted/checkpoint-"$(jq -s '[.[].step] | max' interrupted/metrics.jsonl)" ] || fail "a step was not saved"
standing() { # it makes no steps any more
    local now
    now=$(wc -l <interrupted/metrics.jsonl)
    [ "$now" -eq "$before" ] && return 0
    before=$now
    sleep 0.3
    return 1
}
for more in 3 9 14; do
    start interrupted2.log "$limbeck" train distil.yaml --output-dir interrupted --resume --set prefetch=1
    await reached interrupted $((5 + more))
    kill -STOP "${pid[others]}"
    before=0
    await standing
    kill -INT "$job"
    ends_with 3 "$job" interrupted2.log
    kill -CONT "${pid[others]}"
    said interrupted2.log "stopping cleanly" --resume
done
expect 0 interrupted.log "$limbeck" train distil.yaml --output-dir interrupted --resume
same_student run interrupted
whole_journal interrupted

say "a finished run, resumed: nothing to do but to write the student again"
rm -r run/student
cp -r killed/student finished.student
expect 0 finished.log "$limbeck" train distil.yaml --resume
[ "$(done_number finished.log teacher_requests)" -eq 0 ] || fail "teachers were asked about nothing"
same_student run killed

say "a folder that holds a run"
expect 1 again.log "$limbeck" train distil.yaml
one_error again.log
said again.log "already holds a run" --resume
same_student run killed

say "two trainers in one folder"
start first.log "$limbeck" train distil.yaml --output-dir shared
await reached shared 1
expect 1 second.log "$limbeck" train distil.yaml --output-dir shared --resume
one_error second.log
said second.log "another trainer runs in this folder"
ends_with 0 "$job" first.log
same_student run shared
whole_journal shared

say "another recipe, other data, another teacher: not this run"
cp shared/recipe.yaml resolved.yaml
expect 1 recipe.log "$limbeck" train distil.yaml --output-dir shared --resume --set learning_rate=0.02
one_error recipe.log
said recipe.log recipe "there learning_rate: 0.01, here learning_rate: 0.02"
cmp resolved.yaml shared/recipe.yaml || fail "a refused run changed the folder's recipe"
cp train.nouns.txt kept.txt
sed -i '7s/can/could/' train.nouns.txt
expect 1 data.log "$limbeck" train distil.yaml --output-dir shared --resume
one_error data.log
said data.log data
mv kept.txt train.nouns.txt
drop others
host others nouns/student
expect 1 teacher.log "$limbeck" train distil.yaml --output-dir shared --resume
one_error teacher.log
said teacher.log teacher
never_said teacher.log tokenizer
drop others
host others others/student
expect 0 shared.log "$limbeck" train distil.yaml --output-dir shared --resume
same_student run shared
