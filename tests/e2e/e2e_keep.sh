#!/bin/bash
# Nothing of the user's is destroyed, and whatever ends a run, the steps that were made are kept.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

make_teachers 10
host nouns nouns/student
host others others/student
distil_recipe distil.yaml

say "what stands in the way of an export stays"
mkdir thesis
echo "six years of work" >thesis/thesis.txt
cp thesis/thesis.txt one.gguf
expect 1 export1.log "$limbeck" export nouns -f hf -o thesis
one_error export1.log
said export1.log thesis thesis.txt
expect 1 export2.log "$limbeck" export nouns -f hf -o nouns # a whole run
one_error export2.log
expect 1 export3.log "$limbeck" export nouns -f gguf -o one.gguf
one_error export3.log
cmp thesis/thesis.txt one.gguf
[ -d nouns/checkpoint-10 ] || fail "a run is gone"
expect 0 export4.log "$limbeck" export nouns -f hf -o exported
expect 0 export5.log "$limbeck" export others -f hf -o exported # our own is replaced
cp thesis/thesis.txt exported/
expect 1 export6.log "$limbeck" export nouns -f hf -o exported # with something added it is not
said export6.log thesis.txt
expect 0 export7.log "$limbeck" export nouns -f gguf -o two.gguf
expect 0 export8.log "$limbeck" export others -f gguf -o two.gguf

say "what stands in the way of a run stays, and is told before anything is trained"
for thing in student/thesis.txt checkpoint-1000/pytorch_model.bin checkpoint-7/thesis.txt; do
    rm -rf mine
    mkdir -p "mine/${thing%/*}"
    echo "mine" >"mine/$thing"
    expect 1 mine.log "$limbeck" train distil.yaml -o mine
    one_error mine.log
    said mine.log "${thing%/*}"
    [ "$(cat "mine/$thing")" = mine ] || fail "$thing is gone"
done

say "--resume means a run that is there"
expect 1 mistyped.log "$limbeck" train distil.yaml -o rum --resume
one_error mistyped.log
said mistyped.log rum "no such folder"
[ ! -e rum ] || fail "a mistyped folder was made"
mkdir empty
expect 1 empty.log "$limbeck" train distil.yaml -o empty --resume
said empty.log "no run to go on with"

say "undisturbed"
expect 0 run.log "$limbeck" train distil.yaml

say "a run whose folder was moved goes on where it is"
start moved.log "$limbeck" train distil.yaml -o before
await reached before 9
kill -INT "$job"
ends_with 3 "$job" moved.log
mv before after
expect 0 moved2.log "$limbeck" train after/recipe.yaml --resume
[ ! -e before ] || fail "the old folder is back"
same_student run after

say "signals: save and go on, save and end"
# SIGHUP may be ignored where the tests run (nohup), and is then by what they start.
start usr1.log env --default-signal=HUP "$limbeck" train distil.yaml -o usr1 --set save_steps=0 --set max_steps=3000 --set prefetch=1
await reached usr1 5
kill -USR1 "$job"
await has usr1.log "by=SIGUSR1"
[ -n "$(find usr1 -name 'checkpoint-*')" ] || fail "no checkpoint after SIGUSR1"
step=$(wc -l <usr1/metrics.jsonl)
await reached usr1 $((step + 5))
for signal in HUP TERM; do
    kill -s "$signal" "$job"
    ends_with 3 "$job" usr1.log
    last=$(jq -s '[.[].step] | max' usr1/metrics.jsonl)
    [ -d "usr1/checkpoint-$last" ] || fail "SIG$signal lost a step"
    [ "$signal" = TERM ] || start usr1.log env --default-signal=HUP "$limbeck" train distil.yaml -o usr1 --resume --set save_steps=0 --set max_steps=3000
    [ "$signal" = TERM ] || await reached usr1 $((last + 5))
done

say "numbers that go bad"
expect 1 nan.log "$limbeck" train distil.yaml -o nan --set save_steps=0 --set learning_rate=100 --set lr_scheduler_type=constant --set warmup_ratio=0 --set weight_decay=10
one_error nan.log
said nan.log "saved step="
[ -n "$(find nan -name 'checkpoint-*')" ] || fail "the steps before are lost"

say "a damaged line of metrics costs itself only"
start journal.log "$limbeck" train distil.yaml -o journal --set logging_steps=3
await has journal/metrics.jsonl '"step": 9'
kill -INT "$job"
ends_with 3 "$job" journal.log
sed -i '2s/^{/?/' journal/metrics.jsonl
expect 0 journal2.log "$limbeck" train distil.yaml -o journal --resume --set logging_steps=3
holds -s '[.[] | select(.loss) | .step] == [3, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 40]' journal/metrics.jsonl
expect 0 straight.log "$limbeck" train distil.yaml -o straight --set logging_steps=3
for run in journal straight; do # the means do not depend on where it was resumed
    jq -c 'select(.step > 6) | [.step, .loss, ."loss/kl", ."weight/nouns"]' $run/metrics.jsonl >$run.means
done
cmp journal.means straight.means

say "what killed writers left is swept by the next that owns the place"
start left.log "$limbeck" train distil.yaml -o left
await reached left 8
murder "$job"
mkdir left/student.new-1 left/.unfinished-9
touch left/recipe.yaml.tmp-1-0 left/student.new-1/config.json left/notes.new
expect 0 left2.log "$limbeck" train distil.yaml -o left --resume
[ "$(find left -name '*.tmp-*' -o -name '*.new-*' -o -name '.unfinished*' | wc -l)" -eq 0 ] || fail "remains are left"
[ -e left/notes.new ] || fail "a file of the user's is gone"
same_student run left

say "a folder for a local teacher goes with its trainer, or with the next one"
mkdir tmp
start local.log env TMPDIR="$PWD/tmp" "$limbeck" train distil.yaml -o local --set teachers.0.url=local:nouns/student \
    --set max_steps=4000
await reached local 3
murder "$job"
[ "$(find tmp -name 'limbeck-local-*' | wc -l)" -eq 1 ] || fail "no folder of a killed trainer to sweep"
expect 0 local2.log env TMPDIR="$PWD/tmp" "$limbeck" train distil.yaml -o local2 --set teachers.0.url=local:nouns/student
[ "$(find tmp -name 'limbeck-local-*' | wc -l)" -eq 0 ] || fail "a killed trainer's folder is left"
