#!/bin/bash
# A teacher that reads another prompt than the student: privileged, and the same tokens behind it.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

make_teachers 30
host others others/student

# Records whose prompt is two words, and a hint of other words and another number of them.
records() { # order of the two prompts
    text nouns 24 31 | jq -cR --arg order "$1" 'split(" ") as $w | ($w[:2] | join(" ")) as $short |
        ("the \($w[2]) is \($w[1])" + (if ($w[0] | length) > 3 then " and \($w[0])" else "" end)) as $long |
        {prompt: $short, hint: $long, completion: (" " + ($w[2:] | join(" ")))} |
        if $order == "turned" then {prompt: .hint, hint: .prompt, completion}
        elif $order == "same" then .hint = .prompt else . end'
}
for order in straight turned same; do
    records $order >$order.jsonl
done
base_recipe | sed '/^student:/,/^tokenizer:/d; /^max_steps/d; /^max_length/d' >recipe.yaml
cat >>recipe.yaml <<END
student: {model: others/student}
tokenizer: $tokenizer
datasets: [{path: straight.jsonl}]
teachers: [{name: T, url: "${url[others]}", teacher_prompt: hint}]
loss_functions:
  - {function: jsd, beta: 0.5}
  - {function: hs_mse}
max_length: 48
max_steps: 3
fp16_targets: false
seed: 4
output_dir: run
END

say "model and teacher are one: the loss is what the prompts make of it, and the same when they are changed for each other"
for lane in final_hidden logits; do
    for order in straight turned same; do
        expect 0 $order.log "$limbeck" train recipe.yaml -o $order.$lane --set "datasets=[{path: $order.jsonl}]" --set targets=$lane
    done
    holds -s '.[0]["loss/jsd"] > 0.001 and .[0]["loss/hs_mse"] > 0.001
        and (.[0]["loss/jsd"] / .[1]["loss/jsd"] - 1 | fabs) < 1e-4 and (.[0]["loss/hs_mse"] / .[1]["loss/hs_mse"] - 1 | fabs) < 1e-4
        and .[0].tokens == .[1].tokens and (.[2]["loss/jsd"] | fabs) < 1e-6 and .[2]["loss/hs_mse"] < 1e-6' \
        <(head -n 1 straight.$lane/metrics.jsonl) <(head -n 1 turned.$lane/metrics.jsonl) <(head -n 1 same.$lane/metrics.jsonl)
done

say "the same prompt as its own is no other"
expect 0 plain.log "$limbeck" train recipe.yaml -o plain --set "teachers=[{name: T, url: \"${url[others]}\"}]" \
    --set 'datasets=[{path: same.jsonl}]'
same_student plain same.final_hidden

say "one model finds likely what it finds likely; behind another prompt not quite"
holds -s '.[0]["overlap_ratio/T"] > 0.9999 and .[0]["student_mass/T"] == .[0]["teacher_mass/T"] and .[0]["student_mass/T"] > 0.2
    and .[1]["overlap_ratio/T"] < 0.9999 and .[1]["overlap_ratio/T"] > 0.5
    and .[1]["student_mass/T"] != .[1]["teacher_mass/T"]' \
    <(head -n 1 same.final_hidden/metrics.jsonl) <(head -n 1 straight.final_hidden/metrics.jsonl)

say "lists, chunks and weights by cross entropy read the same places"
for way in lists weights chunks; do
    case $way in
    lists) set='targets=topk' ;;
    weights) set='mixture=ca_mkd' ;;
    chunks) set='loss_functions=[{function: alm}]' ;;
    esac
    for order in same plain; do
        [ $order = same ] && prompt=', teacher_prompt: hint' || prompt=''
        expect 0 lists.log "$limbeck" train recipe.yaml -o "$order.$way" --set 'datasets=[{path: same.jsonl}]' --set "$set" \
            --set "teachers=[{name: T, url: \"${url[others]}\"$prompt}, {name: U, url: \"${url[others]}\"}]"
    done
    same_student "same.$way" "plain.$way"
    expect 0 lists.log "$limbeck" train recipe.yaml -o "other.$way" --set "$set" \
        --set "teachers=[{name: T, url: \"${url[others]}\", teacher_prompt: hint}, {name: U, url: \"${url[others]}\"}]"
    other_student "same.$way" "other.$way"
done

say "the student's own text behind it; the same bits when the run was killed"
own=(--set lmbda=1 --set log_completions=true --set max_new_tokens=12 --set max_steps=12 --set save_steps=3)
expect 0 own.log "$limbeck" train recipe.yaml -o own "${own[@]}"
start killed.log "$limbeck" train recipe.yaml -o killed "${own[@]}"
await reached killed 5
murder "$job"
expect 0 killed.log "$limbeck" train recipe.yaml -o killed "${own[@]}" --resume
same_student own killed
cmp own/completions.jsonl killed/completions.jsonl || fail "a run that was killed wrote other texts"
holds -s '[.[] | .loss > 0] | all' own/metrics.jsonl

say "conversations: a list of messages"
chat_tokenizer tok
chats() { # content of the user's message, of the hint's
    text nouns 24 1 | jq -cR --arg own "$1" --arg hint "$2" '{messages: [{role: "user", content: $own}, {role: "assistant", content: .}],
        hint: [{role: "system", content: "you know"}, {role: "user", content: $hint}]}'
}
chats "say" "speak well" >chats.jsonl
expect 0 chats.log "$limbeck" train recipe.yaml -o chats --set tokenizer=tok --set 'datasets=[{path: chats.jsonl}]' --set max_length=64
jq -c '{prompt: .messages[:-1], completion: .messages[-1:], hint}' chats.jsonl >pairs.jsonl
expect 0 pairs.log "$limbeck" train recipe.yaml -o pairs --set tokenizer=tok --set 'datasets=[{path: pairs.jsonl}]' --set max_length=64
same_student chats pairs

say "what makes no sense is refused in one line"
jq -c 'del(.hint)' same.jsonl >bare.jsonl
train_refused "bare.jsonl:1: the line: hint, which teachers read in place of the prompt, is missing" --set 'datasets=[{path: bare.jsonl}]'
train_refused "chats.jsonl:1: the line: hint" --set 'datasets=[{path: chats.jsonl}]' --set tokenizer=tok \
    --set 'datasets=[{path: chats.jsonl}]' --set "teachers=[{name: T, url: \"${url[others]}\", teacher_prompt: hint2}]"
text nouns 60 5 >plain.txt
train_refused "reads at most 64 tokens, its prompt and a completion have up to" --set lmbda=1 --set max_length=64 \
    --set 'datasets=[{path: straight.jsonl}]'
train_refused "texts have no hint" --set 'datasets=[{path: plain.txt}]'
head -c 4000 /dev/zero | tr '\0' '\2' >shard.bin
train_refused "token shards have no hint" --set 'datasets=[{path: shard.bin}]'
train_refused "attention loss" --set 'loss_functions=[{function: attention_mse, layer_mapping: [{student: 0, teacher: 0}]}]'
train_refused "where another teacher reads hint" --set "teachers=[{name: T, url: \"${url[others]}\", teacher_prompt: hint},
    {name: U, url: \"${url[others]}\", teacher_prompt: other}]"
