#!/bin/bash
# Several recipes by one command, where later ones learn from what earlier ones make: killed and resumed to the same bits,
# what is done is not done again, and what does not fit together is refused before the first begins.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

text nouns 200 1 >train.txt
text nouns 30 2 >test.txt
for g in 1 2 3; do
    base_recipe >"born$g.yaml"
    cat >>"born$g.yaml" <<END
datasets: [{path: train.txt}]
eval_datasets: [{path: test.txt}]
seed: $g
save_steps: 5
output_dir: runs/born$g
END
done
echo "loss_functions: [{function: cross_entropy}]" >>born1.yaml
for g in 2 3; do
    cat >>"born$g.yaml" <<END
teachers: [{name: before, url: "local:./runs/../runs/born$((g - 1))/student"}]
loss_functions: [{function: kl}]
END
done
born=(born1.yaml born2.yaml born3.yaml)
same_students() { # runs, runs
    for g in 1 2 3; do
        same_student "$1/born$g" "$2/born$g"
    done
}

say "what does not fit is told before anything is trained"
refused() { # status, what a line says, arguments... (errors: lines of them)
    local status=$1 text=$2 errors=${errors:-1}
    shift 2
    expect "$status" refused.log "$limbeck" train "$@"
    said refused.log "$text"
    [ "$(grep -c '^limbeck: ' refused.log)" -eq "$errors" ] || [ "$status" -eq 2 ] || fail "not $errors lines of errors"
    [ ! -e runs ] || fail "something began"
}
refused 1 'born2.yaml:26: teachers.0.url: local:./runs/../runs/born1/student is what born1.yaml makes, which comes later' born2.yaml born1.yaml
refused 1 'born2.yaml:26: teachers.0.url: local:./runs/../runs/born1/student: no such file or folder, and no recipe before this one makes it' \
    born2.yaml born3.yaml
refused 1 "born1.yaml:25: output_dir: runs/born1 is in the way of the run folder of born1.yaml" born1.yaml born1.yaml
refused 1 'datasets.0.path: none.txt: no such file or folder' "${born[@]}" --set 'datasets=[{path: none.txt}]'
refused 2 "each of several recipes has its own" "${born[@]}" -o run
refused 2 "each of several recipes has its own" "${born[@]}" --set output_dir=run
sed 's/^seed: 3/sead: 3/' born3.yaml >wrong.yaml
refused 1 'wrong.yaml:23: sead: unknown key' born1.yaml born2.yaml wrong.yaml
errors=3 refused 1 'born2.yaml: --set seed: "x" is not a whole number' "${born[@]}" --set seed=x
mkdir -p real/deep
ln -s real/deep link
sed 's|^output_dir: .*|output_dir: link/../born1|' born1.yaml >linked.yaml # real/born1
sed 's|^output_dir: .*|output_dir: real/born1|' born2.yaml >same.yaml
refused 1 'same.yaml:25: output_dir: real/born1 is in the way of the run folder of linked.yaml' linked.yaml same.yaml
sed 's|local:.*/student|local:real/born1/student|' born2.yaml >reads.yaml
expect 0 linked.log "$limbeck" train linked.yaml reads.yaml --check
: >taken
sed 's|^output_dir: .*|output_dir: taken|' born2.yaml >taken.yaml
refused 1 'taken.yaml:25: output_dir: taken is a file, not a folder' born1.yaml taken.yaml
expect 0 checked.yaml "$limbeck" train "${born[@]}" --check
[ "$(grep -c '^---$' checked.yaml)" -eq 2 ] || fail "not three recipes"
[ ! -e runs ] || fail "something began"

say "undisturbed: what each would be by itself"
expect 0 whole.log "$limbeck" train "${born[@]}"
said whole.log 'recipe recipe="born2.yaml" number=2 of=3'
mv runs whole
for g in 1 2 3; do
    expect 0 "alone$g.log" "$limbeck" train "born$g.yaml"
done
same_students whole runs
other_student runs/born2 runs/born3
expect 1 twice.log "$limbeck" train "${born[@]}"
one_error twice.log
said twice.log "output_dir: runs/born1 already holds a run: go on with all of them with --resume"

say "all of it is done: nothing is trained again"
before=$(cat runs/*/metrics.jsonl | sha256sum)
expect 0 done.log "$limbeck" train "${born[@]}" --resume
[ "$(grep -c done_already done.log)" -eq 3 ] || fail "it was not all done"
never_said done.log training
[ "$before" = "$(cat runs/*/metrics.jsonl | sha256sum)" ] || fail "a journal was written"

say "what is made of other data, or by another teacher, is not done: resume looks at it, as it does at one run"
text others 200 1 >others.txt
cp train.txt kept.txt
sed 's/path: train.txt/path: others.txt/' born1.yaml >data.yaml
expect 1 data.log "$limbeck" train data.yaml born2.yaml born3.yaml --resume
one_error data.log
said data.log "data.yaml: ./runs/born1/checkpoint-40: was trained on other data"
cp others.txt train.txt
expect 1 data.log "$limbeck" train "${born[@]}" --resume
said data.log "born1.yaml: ./runs/born1/checkpoint-40: was trained on other data"
cp kept.txt train.txt
cp -r whole/born3/student elsewhere
sed 's|local:.*/student|local:elsewhere|' born2.yaml >teacher.yaml
expect 1 teacher.log "$limbeck" train born1.yaml teacher.yaml --resume
one_error teacher.log
said teacher.log "teacher.yaml: "
same_students whole runs
touch -d '1 hour' runs/born2/recipe.yaml # as a run has it that was begun again for more steps
expect 0 again.log "$limbeck" train "${born[@]}" --resume
never_said again.log 'done_already recipe="born2.yaml"'
same_students whole runs

say "killed in each of them, and resumed"
rm -r runs
how=()
for g in 1 2 3; do
    start "killed$g.log" "$limbeck" train "${born[@]}" "${how[@]}"
    await reached "runs/born$g" 13
    murder "$job"
    how=(--resume)
done
said killed3.log 'done_already recipe="born1.yaml"' "resumed checkpoint=\"./runs/born2/checkpoint-"
expect 0 killed.log "$limbeck" train "${born[@]}" --resume
said killed.log 'done_already recipe="born2.yaml"'
same_students whole runs

say "interrupted: the same command and --resume"
rm -r runs
start interrupted.log "$limbeck" train "${born[@]}"
await reached runs/born2 5
kill -INT "$job"
ends_with 3 "$job" interrupted.log
said interrupted.log "go on with the same command and --resume"
expect 0 again.log "$limbeck" train "${born[@]}" --resume
same_students whole runs

say "one that is lost is made anew, and what learnt from it is looked at again; another in its place is refused"
rm -r runs/born1
expect 0 anew.log "$limbeck" train "${born[@]}" --resume
never_said anew.log done_already
same_students whole runs
rm -r runs/born1
sed -i 's/^seed: 1/seed: 11/' born1.yaml
expect 1 other.log "$limbeck" train "${born[@]}" --resume
one_error other.log
said other.log "born2.yaml"
same_student whole/born2 runs/born2
rm -r runs

say "the examples, with less of everything"
mkdir -p tree/wordnet/text
cp -r "$LB_SOURCE_ROOT/examples/chains" tree/
cp "$tokenizer" tree/wordnet/
for kind in noun other; do
    text "${kind/noun/nouns}" 100 1 >"tree/wordnet/text/train.$kind.txt"
    text "${kind/noun/nouns}" 20 2 >"tree/wordnet/text/dev.$kind.txt"
done
cd tree || exit 1
less=(--set max_steps=3 --set warmup_steps=1 --set eval_steps=0 --set per_device_train_batch_size=2)
expect 0 born.log "$limbeck" train chains/born-again-{1,2,3}.yaml "${less[@]}"
expect 0 assistant.log "$limbeck" train chains/assistant-{1-big,2-middle,3-small}.yaml "${less[@]}"
holds '.hidden_size == 64' ../runs/assistant-small/student/config.json
