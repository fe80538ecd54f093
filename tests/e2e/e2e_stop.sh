#!/bin/bash
# Ctrl-C and SIGTERM end what takes long, promptly, and keep what was done.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

prompt_ms=${LB_TEST_PROMPT_MS:-2000} # what a person waits without wondering

# Sends the signal; the process has to end in time, with that status.
stops() { # status, signal, process, file
    local began ms
    began=$(date +%s%N)
    kill -s "$2" "$3"
    ends_with "$1" "$3" "$4"
    ms=$((($(date +%s%N) - began) / 1000000))
    [ "$ms" -le "$prompt_ms" ] || fail "it took $ms ms to end after SIG$2, see $4"
    one_error <(grep -v 'stopping cleanly' "$4")
}

catches() { # process: SIGTERM does not end it by itself any more; before it is limbeck it is a shell, which catches it too
    local mask
    mask=0x$(awk '/^Name/ { name = $2 } /^SigCgt/ { print (name == "limbeck" ? $2 : 0) }' "/proc/$1/status")
    ((mask & (1 << 14)))
}

text nouns 400 1 >data.txt
base_recipe >recipe.yaml
cat >>recipe.yaml <<END
datasets: [{path: data.txt}]
loss_functions: [{function: cross_entropy}]
seed: 5
save_steps: 0
output_dir: run
END
sed -i '/^max_steps: 40$/d' recipe.yaml
echo "max_steps: 6" >>recipe.yaml

say "a long tokenisation, before there is anything to save, and when a run goes on"
text nouns 400000 2 >long.txt
for signal in INT TERM; do
    start reading.log "$limbeck" train recipe.yaml -o "reading$signal" --set datasets.0.path=long.txt
    await test -e "reading$signal/lock"
    stops 1 "$signal" "$job" reading.log
    said reading.log "stopped before there was anything to save"
done
[ ! -e readingINT/metrics.jsonl ] || fail "it made steps"
expect 0 reading2.log "$limbeck" train recipe.yaml -o readingINT # the folder may be used

say "an evaluation inside a run: the step is saved, the evaluation made up for"
for n in 1 2 3 4 5 6 7 8; do
    text others 40000 "$n"
done >held-out.txt
evaluated=(--set 'eval_datasets=[{path: held-out.txt, max_tokens: 1500000}]' --set eval_steps=3)
start evaluating.log "$limbeck" train recipe.yaml -o evaluating "${evaluated[@]}"
await reached evaluating 3
never_said evaluating/metrics.jsonl eval_loss
stops 3 INT "$job" evaluating.log
[ -d evaluating/checkpoint-3 ] || fail "step 3 is lost"
never_said evaluating/metrics.jsonl eval_loss
short=(--set 'eval_datasets=[{path: held-out.txt, max_tokens: 2000}]' --set eval_steps=3)
expect 0 evaluated.log "$limbeck" train recipe.yaml -o evaluated "${short[@]}"
start broken.log "$limbeck" train recipe.yaml -o broken "${evaluated[@]}"
await reached broken 3
stops 3 TERM "$job" broken.log
# The data of an evaluation decide nothing about the student: shorter ones are the same run.
expect 0 broken2.log "$limbeck" train recipe.yaml -o broken "${short[@]}" --resume
for run in evaluated broken; do
    jq -c 'select(.eval_loss) | [.step, .eval_loss]' "$run/metrics.jsonl" >"$run.evaluations"
done
cmp evaluated.evaluations broken.evaluations
[ "$(wc -l <broken.evaluations)" -eq 2 ] || fail "evaluations: $(cat broken.evaluations)"
same_student evaluated broken

say "waiting for a teacher that is not there yet"
start waiting.log "$limbeck" train recipe.yaml -o waiting --set 'teachers=[{name: T, url: "http://127.0.0.1:9"}]' \
    --set 'loss_functions=[{function: kl}]'
await has waiting.log teacher_lost
stops 1 INT "$job" waiting.log
said waiting.log "stopped before there was anything to save"

say "limbeck eval: reading and scoring"
start eval.log "$limbeck" eval evaluated/student held-out.txt
await catches "$job"
stops 1 TERM "$job" eval.log

say "an export that takes long: what stood there stays, and nothing half-written"
hollow_model big evaluated/student 6 # a hundred million weights
expect 0 earlier.log "$limbeck" export evaluated -f gguf -o big.gguf
cp big.gguf earlier.gguf
writing() {
    [ -n "$(find . -maxdepth 1 -name 'big.gguf.tmp-*')" ]
}
for signal in INT TERM; do
    start export.log "$limbeck" export big -f gguf -d f32 -o big.gguf
    await writing
    stops 1 "$signal" "$job" export.log
    if ! has export.log "stopped before it was compared"; then
        said export.log "stopped while writing big.gguf"
        cmp big.gguf earlier.gguf
    fi
    ! writing || fail "something half-written is left"
done
