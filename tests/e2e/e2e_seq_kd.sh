#!/bin/bash
# Teachers write: sequence-level distillation over the wire, alone and beside the data's and the student's text.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

make_teachers 40
host nouns nouns/student
host others others/student

prompts() {
    jq -cR 'split(" ") | {prompt: (.[:3] | join(" ")), hint: ("so " + (.[:4] | join(" "))), completion: (" " + (.[3:] | join(" ")))}'
}
text nouns 24 31 | prompts >nouns.jsonl
text others 24 31 | prompts >others.jsonl
base_recipe | sed '/^max_steps/d' >recipe.yaml
cat >>recipe.yaml <<END
datasets: [{path: nouns.jsonl}]
teachers: [{name: nouns, url: "${url[nouns]}"}]
loss_functions: [{function: cross_entropy}]
seq_kd: true
max_steps: 8
save_steps: 3
seed: 4
output_dir: run
END

asked() { # name: texts' requests that the daemon has had
    local mark=mark$RANDOM$RANDOM
    curl -s "${url[$1]}/v2/models/$mark" >mark.json # its log is written behind
    await has "$1.log" "$mark"
    grep -c 'path="/v1/completions"' "$1.log" || true
}

# What limbeck generate makes of the prompts, as data.
as_data() { # model, member that is the prompt, option...
    local model=$1 member=$2 line prompt
    shift 2
    while read -r line; do
        prompt=$(jq -j ".$member" <<<"$line" && echo x)
        # Rows of data are cut where texts are: at max_length.
        expect 0 text.json "$limbeck" generate "$model" --prompt "${prompt%x}" --seed 4 --json "$@" --max-new-tokens 24
        jq -c --argjson line "$line" '{prompt: $line.prompt, completion: .text}' text.json
    done
}

say "what a teacher writes is what limbeck generate writes, and is learnt as if it were data"
expect 0 run.log "$limbeck" train recipe.yaml --set generation_temperature=0
as_data nouns/student prompt --temperature 0 <nouns.jsonl >written.jsonl
expect 0 data.log "$limbeck" train recipe.yaml -o data --set seq_kd=false --set 'datasets=[{path: written.jsonl}]' --set 'teachers=[]'
same_student run data
said run.log "teachers_wrote texts=24"

say "behind the prompt that the teacher reads"
hinted=(--set generation_temperature=0 --set "teachers=[{name: nouns, url: \"${url[nouns]}\", teacher_prompt: hint}]")
expect 0 hint.log "$limbeck" train recipe.yaml -o hint "${hinted[@]}"
as_data nouns/student hint --temperature 0 <nouns.jsonl >hinted.jsonl
expect 0 hintdata.log "$limbeck" train recipe.yaml -o hintdata --set seq_kd=false --set 'datasets=[{path: hinted.jsonl}]' --set 'teachers=[]'
same_student hint hintdata
other_student run hint

say "killed, resumed, from a cache: the same texts, and a cache has them once"
expect 0 drawn.log "$limbeck" train recipe.yaml -o drawn
other_student run drawn
start killed.log "$limbeck" train recipe.yaml -o killed
await reached killed 4
murder "$job"
expect 0 killed.log "$limbeck" train recipe.yaml -o killed --resume
same_student drawn killed
expect 0 fill.log "$limbeck" train recipe.yaml -o filled --set cache_dir=cache --set max_steps=1
before=$(asked nouns)
expect 0 cached.log "$limbeck" train recipe.yaml -o cached --set cache_dir=cache
same_student drawn cached
[ "$(asked nouns)" -gt "$before" ] || fail "texts that the cache lacks were not asked for"
before=$(asked nouns)
expect 0 again.log "$limbeck" train recipe.yaml -o again --set cache_dir=cache
same_student drawn again
[ "$(asked nouns)" -eq "$before" ] || fail "texts were asked for that are in the cache"

say "the data's text, a teacher's and the student's, each with a loss of its own; the same bits after a kill"
three=(--set lmbda=0.4 --set seq_kd_ratio=0.5 --set max_steps=30 --set per_device_train_batch_size=2 --set log_completions=true
    --set 'loss_functions=[{function: cross_entropy, on: given}, {function: kl, on: dataset}, {function: skew_kl, on: teacher}, {function: skew_reverse_kl, on: student}]')
expect 0 three.log "$limbeck" train recipe.yaml -o three "${three[@]}"
holds -s '[.[] | [.["loss/kl"], .["loss/skew_kl"], .["loss/skew_reverse_kl"]] | map(select(. > 0)) | length] | all(. == 1)' three/metrics.jsonl
holds -s '[.[] | if .["loss/kl"] > 0 then 0 elif .["loss/skew_kl"] > 0 then 1 else 2 end] | (unique | length) == 3' three/metrics.jsonl
start killed.log "$limbeck" train recipe.yaml -o broken "${three[@]}"
await reached broken 11
murder "$job"
expect 0 killed.log "$limbeck" train recipe.yaml -o broken "${three[@]}" --resume
same_student three broken

say "of several teachers each sample has one: drawn, or by its tag"
both="teachers=[{name: nouns, url: \"${url[nouns]}\", tags: [n]}, {name: others, url: \"${url[others]}\", tags: [o]}]"
sets='datasets=[{path: nouns.jsonl, tag: n}, {path: others.jsonl, tag: o}]'
for mixture in mean_probs route; do
    n=$(asked nouns) o=$(asked others)
    expect 0 both.log "$limbeck" train recipe.yaml -o $mixture --set "$both" --set "$sets" --set mixture=$mixture
    [ "$(asked nouns)" -gt "$n" ] && [ "$(asked others)" -gt "$o" ] || fail "$mixture: one of both wrote nothing"
done
other_student mean_probs route
expect 0 one.log "$limbeck" train recipe.yaml -o one --set "$both" --set "$sets" --set mixture=route --set generation_temperature=0 \
    --set max_steps=20
as_data nouns/student prompt --temperature 0 <nouns.jsonl >n.jsonl
as_data others/student prompt --temperature 0 <others.jsonl >o.jsonl
expect 0 tagged.log "$limbeck" train recipe.yaml -o tagged --set seq_kd=false --set 'teachers=[]' --set mixture=mean_probs \
    --set 'datasets=[{path: n.jsonl, tag: n}, {path: o.jsonl, tag: o}]' --set max_steps=20
same_student one tagged

say "a teacher whose weight begins at 0 writes nothing, and that is told"
late() { # output, option...
    expect "$1" late.log "$limbeck" train recipe.yaml -o "late$1" --set "${both/tags: \[o\]/tags: [o], weight: 0, anneal: linear, weight_end: 1}" "${@:2}"
}
o=$(asked others)
late 0 --set 'loss_functions=[{function: kl}]'
said late.log 'teacher_writes_nothing teacher=others because="its weight begins at 0"'
[ "$(asked others)" -eq "$o" ] || fail "it wrote"
late 1 --set "$sets" --set mixture=route
one_error late.log
said late.log "has a weight above 0 at the start"

say "of data sets by weight, and of shards, it is the samples that the run reads that are written behind"
weighed="datasets=[{path: nouns.jsonl, tag: n, weight: 1}, {path: others.jsonl, tag: o, weight: 3}]"
expect 0 weighed.log "$limbeck" train recipe.yaml -o weighed --set "$both" --set "$weighed" --set mixture=route \
    --set generation_temperature=0 --set max_steps=2
expect 0 weighed.data.log "$limbeck" train recipe.yaml -o weighed.data --set seq_kd=false --set 'teachers=[]' --set mixture=mean_probs \
    --set 'datasets=[{path: n.jsonl, tag: n, weight: 1}, {path: o.jsonl, tag: o, weight: 3}]' --set max_steps=2
same_student weighed weighed.data
head -c 4000 /dev/zero | tr '\0' '\2' >shard.bin
expect 0 shard.log "$limbeck" train recipe.yaml -o shard --set 'datasets=[{path: shard.bin, prompt_length: 4}]' --set max_steps=1
said shard.log "teachers_wrote texts=8"

say "a run of no near end: texts are written once each sample has who writes it, and nobody waits for that"
start endless.log "$limbeck" train recipe.yaml -o endless --set max_steps=100000000000
await has endless.log teachers_wrote
murder "$job"
start rare.log "$limbeck" train recipe.yaml -o rare --set max_steps=100000000000 --set seq_kd_ratio=1e-9
await test -e rare/metrics.jsonl # the last thing before
kill -INT "$job"
ends_with 3 "$job" rare.log

say "a teacher that is away: what it wrote is in the cache; else it is waited for"
drop nouns
expect 0 offline.log "$limbeck" train recipe.yaml -o offline --set cache_dir=cache
said offline.log "answers come from the cache"
same_student drawn offline
start late.log "$limbeck" train recipe.yaml -o late
await has late.log teacher
host nouns nouns/student
ends_with 0 "$job" late.log
same_student drawn late

say "what makes no sense is refused in one line"
train_refused "seq_kd is false" --set seq_kd=false --set seq_kd_ratio=0.5 --set 'loss_functions=[{function: kl}]'
train_refused "the recipe lists none" --set 'teachers=[]'
train_refused "is of texts that the student writes, and lmbda is 0" --set log_completions=true
train_refused "no teacher writes anything" --set seq_kd=false --set 'loss_functions=[{function: kl, on: teacher}]'
train_refused "lmbda is 1: the student writes all texts" --set lmbda=1 --set 'loss_functions=[{function: kl}]'
train_refused "no teacher can write behind a sample's prompt" \
    --set "teachers=[{name: v, url: \"${url[nouns]}\", protocol: vllm, tokenizer: nouns/student}]"
jq '.added_tokens += [range(2048; 4048) | {id: ., content: "<x\(.)>", single_word: false, lstrip: false, rstrip: false,
    normalized: false, special: false}]' "$tokenizer" >wide.json
expect 0 wide.log "$limbeck" train recipe.yaml -o wide --set tokenizer=wide.json --set seq_kd=false --set 'teachers=[]' --set max_steps=1 \
    --set learning_rate=1.0e-9
cp "$tokenizer" wide/student/tokenizer.json # of which half of its rows are padding
host wide wide/student
expect 1 padded.log "$limbeck" train recipe.yaml -o padded --set 'student={model: nouns/student}' \
    --set "teachers=[{name: wide, url: \"${url[wide]}\"}]"
one_error padded.log
said padded.log "seq_kd: teacher wide wrote token"
train_refused "loss_functions.0: cross_entropy takes a text for right" --set lmbda=0.5
