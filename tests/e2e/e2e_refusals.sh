#!/bin/bash
# What cannot work is refused before the first step, in one line that names what, where and what to do.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

n=0
refused() { # text... -- option...
    local texts=()
    while [ "$1" != -- ]; do
        texts+=("$1")
        shift
    done
    shift
    n=$((n + 1))
    expect 1 "refused$n.log" "$limbeck" train distil.yaml --output-dir "refused$n" "$@"
    one_error "refused$n.log"
    said "refused$n.log" "${texts[@]}"
    ! reached "refused$n" 1 || fail "it made steps"
}

make_teachers 10
echo one-of-many >token
echo another >wrong
chmod 600 token wrong
host nouns nouns/student
host others others/student
host guarded others/student --token-file token
distil_recipe distil.yaml
guarded=(--set "teachers.1.url=${url[guarded]}")

say "tokens"
refused "teacher others" "${url[guarded]}" 401 token_file -- "${guarded[@]}"
refused "teacher others" "${url[guarded]}" 401 -- "${guarded[@]}" --set teachers.1.token_file=wrong
refused "teacher others" absent -- "${guarded[@]}" --set teachers.1.token_file=absent
expect 0 right.log "$limbeck" train distil.yaml --output-dir right "${guarded[@]}" --set teachers.1.token_file=token \
    --set max_steps=1
never_said right.log one-of-many
never_said guarded.log one-of-many another

say "another tokenizer, and another vocabulary"
# Two ids swapped: the same size, other text.
jq '.model.vocab |= (to_entries | (.[-1].value) as $a | (.[-2].value) as $b | .[-1].value = $b | .[-2].value = $a
    | from_entries)' "$tokenizer" >swapped.json
refused "teacher nouns" "another tokenizer" /v2/models/nouns/tokenizer -- --set tokenizer=swapped.json
said refused$n.log "$(curl -sf "${url[nouns]}/v2/models/nouns" | jq -r '.parameters.tokenizer_fingerprint[0:12]')"
# Without its tokenizer a teacher can't be asked which it has; the sizes still tell.
cp -r nouns/student bare
rm bare/tokenizer*.json
host bare bare
jq '.model.vocab |= (to_entries | del(.[-1]) | from_entries) | .model.merges |= .[:-1]' "$tokenizer" >shorter.json
size=$(jq '.vocab_size' nouns/student/config.json)
refused "teacher nouns" "vocabulary of $size" "student of $((size - 1))" -- --set tokenizer=shorter.json \
    --set "teachers.0.url=${url[bare]}" --set "teachers.1.url=${url[bare]}"

say "lengths"
refused "teacher nouns" "at most 64 tokens" "max_length is 80" -- --set max_length=80 \
    --set student.max_position_embeddings=128
refused "max_length: 80" "max_position_embeddings 64" -- --set max_length=80

say "models that are not there"
refused "teacher nouns" "${url[nouns]}" absent -- --set teachers.0.model=absent
refused "teacher nouns" nowhere "no model" -- --set teachers.0.url=local:nowhere
sed '/^student:$/,/^tokenizer:/{/^student:$/!{/^tokenizer:/!d}}; s/^student:$/student:\n  model: nowhere/' distil.yaml >model.yaml
expect 1 model.log "$limbeck" train model.yaml -o model
one_error model.log
said model.log "model.yaml:2: student.model: ./nowhere: no such file or folder"
refused "--set tokenizer: cannot open ./nowhere" -- --set tokenizer=nowhere
sed 's/model_type: llama/model_type: gpt9/' distil.yaml >model.yaml
expect 1 model.log "$limbeck" train model.yaml -o model
said model.log 'model.yaml:2: student: model_type "gpt9" is not one of'
refused teachers.0.url ftp -- --set teachers.0.url=ftp://host
"$limbeckd" a=nouns/student b=others/student --listen 127.0.0.1:0 --port-file two.port >two.log 2>&1 &
pid[two]=$!
await is_up two
refused "teacher nouns" "2 models" "a, b" -- --set "teachers.0.url=http://127.0.0.1:$(cat two.port)"

say "replicas that are no replicas"
refused "teacher nouns" "${url[nouns]}" "${url[others]}" "different models" -- \
    --set "teachers.0.replicas=[\"${url[others]}\"]"

say "data"
refused missing.txt "cannot open" -- --set datasets.0.path=missing.txt
: >empty.txt
refused empty.txt "no text" -- --set datasets.0.path=empty.txt --set datasets.1.path=empty.txt

say "a recipe's mistakes have a line and a nearest name"
cp distil.yaml kept.yaml
echo "learning_rat: 1" >>distil.yaml
refused "distil.yaml:$(wc -l <distil.yaml)" learning_rat "did you mean learning_rate" --
cp kept.yaml distil.yaml
refused "did you mean hs_mse" -- --set loss_functions.1.function=hs_mze
layers=$(grep -n hs_mse distil.yaml | cut -d : -f 1)
sed -i 's/function: hs_mse, /&layer_mapping: [{student: 2, teacher: 9}], /' distil.yaml
refused "distil.yaml:$layers: loss_functions.1.layer_mapping" "teacher nouns has no layer 9" --
cp kept.yaml distil.yaml
refused "--set loss_functions.1.layer_mapping" "teacher nouns has no layer 9" -- --set 'loss_functions.1.layer_mapping=[{student: 2, teacher: 9}]'

say "the run folder"
: >file
expect 1 file.log "$limbeck" train distil.yaml --output-dir file
one_error file.log
said file.log file

say "after all that the recipe still works, and a folder of a refused run may be used"
expect 0 good.log "$limbeck" train distil.yaml --output-dir refused1 --set max_steps=2
