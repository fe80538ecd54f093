#!/bin/bash
# The student writes, teachers mark: what is written, what is learnt from it, the same bits however the run went, and what
# is refused.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

make_teachers 30
host nouns nouns/student
host others others/student

prompts() { # file of texts: records whose prompts are two words
    jq -cR 'split(" ") | {prompt: (.[:2] | join(" ")), completion: (" " + (.[2:] | join(" ")))}' "$1"
}
text nouns 40 31 | prompts /dev/stdin >data.jsonl
base_recipe | sed '/^student:/,/^tokenizer:/d; /^max_steps/d; /^lr_sch/d; /^warmup/d' >recipe.yaml
cat >>recipe.yaml <<END
student: {model: others/student}
tokenizer: $tokenizer
datasets: [{path: data.jsonl}]
teachers:
  - {name: nouns, url: "${url[nouns]}"}
  - {name: others, url: "${url[others]}"}
mixture: mean_probs
loss_functions: [{function: jsd, beta: 0.9}]
lr_scheduler_type: constant
lmbda: 1
log_completions: true
max_steps: 3
seed: 4
output_dir: run
END

# Each text of a step is what limbeck generate writes with those weights.
written_by() { # model, run folder, step
    local line prompt
    grep "^{\"step\": $3," "$2/completions.jsonl" >lines
    [ "$(wc -l <lines)" -eq 8 ] || fail "$(wc -l <lines) texts in step $3 instead of 8"
    while read -r line; do
        prompt=$(jq -j .prompt <<<"$line" && echo x)
        expect 0 text.json "$limbeck" generate "$1" --prompt "${prompt%x}" --seed "$(jq .seed <<<"$line")" \
            --max-new-tokens "$(jq '25 - .prompt_tokens' <<<"$line")" --json
        holds --argjson line "$line" '.text == $line.completion and .finish_reason == $line.finish_reason' text.json
    done <lines
}

say "texts are those that limbeck generate writes with the student's weights of that step"
expect 0 run.log "$limbeck" train recipe.yaml
expect 0 two.log "$limbeck" train recipe.yaml -o two --set max_steps=2
written_by others/student run 1
written_by two/student run 3
holds -s '[.[] | .on_policy == 1 and .["completions/mean_length"] > 1 and .writing_seconds > 0] | all' run/metrics.jsonl
holds -s 'length == 24 and ([.[] | .completion] | unique | length > 12)' run/completions.jsonl

say "what is learnt from a text is what would be learnt from it as data"
sharp=(--set generation_temperature=0.3 --set per_device_train_batch_size=4 --set max_steps=1)
expect 0 on.log "$limbeck" train recipe.yaml -o on "${sharp[@]}"
jq -c '{prompt, completion}' on/completions.jsonl >written.jsonl
expect 0 off.log "$limbeck" train recipe.yaml -o off --set 'datasets=[{path: written.jsonl}]' --set lmbda=0 \
    --set log_completions=false --set per_device_train_batch_size=4 --set max_steps=1
holds -s '(.[0].loss - .[1].loss | fabs) < 1e-6 and .[0].tokens == .[1].tokens and .[0].loss > 0' on/metrics.jsonl off/metrics.jsonl

say "half of the micro-batches: the same bits whatever happens to the run, on how many threads, from which replica"
half=(--set lmbda=0.5 --set max_steps=14 --set per_device_train_batch_size=2 --set gradient_accumulation_steps=3 --set save_steps=4
    --set off_policy_steps=2 --set lmbda_ramp_steps=3)
expect 0 half.log "$limbeck" train recipe.yaml -o half "${half[@]}"
holds -s '[.[] | .on_policy] | .[0] == 0 and .[1] == 0 and max > 0 and min == 0' half/metrics.jsonl
holds -s '[.[] | .lmbda] | .[0:6] == [0, 0, 0.125, 0.25, 0.375, 0.5]' half/metrics.jsonl
for at in 3 8 12; do
    [ "$at" -eq 3 ] && how=() || how=(--resume)
    start "killed$at.log" "$limbeck" train recipe.yaml -o killed "${half[@]}" "${how[@]}"
    await reached killed "$at"
    murder "$job"
done
expect 0 killed.log "$limbeck" train recipe.yaml -o killed "${half[@]}" --resume
same_student half killed
cmp half/completions.jsonl killed/completions.jsonl || fail "a run that was killed wrote other texts"
host twin nouns/student
expect 0 other.log "$limbeck" train recipe.yaml -o other "${half[@]}" --set threads=1 --set cache_dir=cache --set prefetch=1 \
    --set "teachers.0.replicas=[\"${url[twin]}\"]"
same_student half other
cmp half/completions.jsonl other/completions.jsonl || fail "one thread wrote other texts"

say "a loss on one source of text: as if the others were not there"
both=("${half[@]}" --set save_steps=0)
expect 0 given.log "$limbeck" train recipe.yaml -o given "${both[@]}" --set "loss_functions=[{function: cross_entropy, on: given}, {function: jsd, beta: 0.9, on: student}]"
holds -s '[.[] | (.on_policy == 0) == (.["loss/jsd"] == 0) and (.on_policy == 1) == (.["loss/cross_entropy"] == 0)] | all' given/metrics.jsonl
expect 0 split.log "$limbeck" train recipe.yaml -o split "${both[@]}" --set "loss_functions=[{function: jsd, beta: 0.9, on: given}, {function: jsd, beta: 0.9, on: student}]"
holds -s '[.[0][:14], .[1][:14]] | transpose | [.[] | (.[0].loss - .[1].loss | fabs) < 1e-5] | all' \
    <(jq -s . half/metrics.jsonl) <(jq -s . split/metrics.jsonl)
other_student half given
[ "$(done_number given.log tokens_answered)" -lt "$(done_number split.log tokens_answered)" ] ||
    fail "teachers were asked about texts that no loss is on"
expect 0 cached.log "$limbeck" train recipe.yaml -o cached --set cache_dir=fresh
expect 0 stats.json "$limbeck" cache stats fresh --json
holds '.entries == 0' stats.json

say "texts take prompt_length; conversations end with what is answered"
text nouns 60 5 >plain.txt
expect 0 plain.log "$limbeck" train recipe.yaml -o plain --set 'datasets=[{path: plain.txt, prompt_length: 5}]' \
    --set max_new_tokens=6 --set targets=topk
holds -s '[.[] | .prompt_tokens == 5 and .completion_tokens <= 6] | all' plain/completions.jsonl
chat_tokenizer tok
text nouns 60 1 | jq -cR '{messages: [{role: "user", content: "say"}, {role: "assistant", content: .}]}' >chats.jsonl
expect 0 chats.log "$limbeck" train recipe.yaml -o chats --set 'datasets=[{path: chats.jsonl}]' --set tokenizer=tok \
    --set max_length=40 --set max_new_tokens=6
holds -s '[.[] | .prompt == "<user>say<eos><assistant>" and .completion_tokens <= 6] | all' chats/completions.jsonl

say "what makes no sense is refused in one line"
train_refused "texts take prompt_length" --set 'datasets=[{path: plain.txt}]'
jq -c '{messages: .messages[:1]}' chats.jsonl >asked.jsonl
train_refused "60 of 60 rows have no prompt" --set 'datasets=[{path: asked.jsonl}]' --set tokenizer=tok
train_refused "prompt_length is for texts" --set 'datasets=[{path: data.jsonl, prompt_length: 3}]'
train_refused "no room to write" --set 'datasets=[{path: plain.txt, prompt_length: 24}]'
train_refused "lmbda is 0" --set lmbda=0
train_refused "lmbda is 0" --set lmbda=0 --set log_completions=false --set top_p=0.5
train_refused "set on: given" --set 'loss_functions=[{function: kl}, {function: cross_entropy}]'
train_refused "the student writes nothing" --set lmbda=0 --set log_completions=false \
    --set 'loss_functions=[{function: kl, on: student}]'
train_refused "no teacher writes" --set 'loss_functions=[{function: kl}, {function: kl, on: teacher}]'
train_refused "no loss function is on what the student writes" --set 'loss_functions=[{function: kl, on: given}]'
train_refused "the recipe lists none" --set 'teachers=[]' --set 'loss_functions=[{function: cross_entropy}]'
train_refused "nobody writes a text there" --set whole_texts=true
