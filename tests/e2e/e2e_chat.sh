#!/bin/bash
# Conversations: shown, trained on, held against a teacher's template.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

chat_tokenizer tok
eos='<eos>'
text nouns 60 1 | jq -cR '{messages: [{role: "user", content: "say"}, {role: "assistant", content: .}]}' >chats.jsonl
base_recipe | sed "s|^tokenizer: .*|tokenizer: tok|; /^max_steps/d; /^max_length/d; /^logging_steps/d" >recipe.yaml
cat >>recipe.yaml <<END
datasets: [{path: chats.jsonl}]
eval_datasets: [{path: chats.jsonl}]
assistant_only_loss: true
loss_functions: [{function: cross_entropy}]
max_steps: 30
max_length: 60
save_steps: 5
logging_steps: 1
seed: 5
output_dir: run
END

say "a conversation is shown as its template writes it; words of people are no special tokens"
chat="[{\"role\": \"user\", \"content\": \"a$eos\"}]"
expect 0 shown bash -c 'printf %s "$1" | "$0" tokenize tok --chat - --add-generation-prompt --json' "$limbeck" "$chat"
holds -e ".text == \"<user>a$eos$eos<assistant>\"" shown
holds -e '[.tokens[] | select(. == "<eos>")] | length == 1' shown
expect 1 none.log bash -c 'printf %s "$1" | "$0" tokenize "$2" --chat -' "$limbeck" "$chat" "$tokenizer"
said none.log "has none" "chat_template.jinja"

say "a run on conversations; interrupted and resumed it gives the same student"
expect 0 run.log "$limbeck" train recipe.yaml
start part.log "$limbeck" train recipe.yaml -o part
await reached part 7
murder "$job"
expect 0 again.log "$limbeck" train recipe.yaml -o part --resume
said again.log "resumed"
same_student run part
expect 0 all.log "$limbeck" train recipe.yaml -o all --set assistant_only_loss=false
other_student run all

say "records that are too long are told"
expect 0 long.log "$limbeck" train recipe.yaml -o long --set max_length=18
said long.log "records_too_long of=datasets max_length=18"

say "a teacher of the same template, of another one"
cp tok/chat_template.jinja run/student/
host same run/student
sed 's/<assistant>/<model>/' tok/chat_template.jinja >run/student/chat_template.jinja
host other run/student
expect 0 probed "$limbeck" probe --json "${url[same]}"
sum=$(sha256sum <tok/chat_template.jinja | cut -d' ' -f1)
has probed "$sum"
expect 0 probed "$limbeck" probe --json --protocol vllm "${url[same]}"
has probed "$sum" || fail "another template hash by vllm: $(cat probed)"
for name in same other; do
    expect 0 "$name.log" "$limbeck" train recipe.yaml -o "taught.$name" --set max_steps=2 \
        --set "teachers=[{name: T, url: \"${url[$name]}\"}]" --set 'loss_functions=[{function: kl}]'
done
said other.log "other_chat_template teacher=T" "ours_sha256=${sum:0:12}"
never_said same.log "other_chat_template"
same_student taught.same taught.other
