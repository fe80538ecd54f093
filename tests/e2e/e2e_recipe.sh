#!/bin/bash
# What a recipe says is done or refused: threads, data of another kind, files as other tools write them.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

text nouns 200 1 >data.txt
base_recipe >recipe.yaml
cat >>recipe.yaml <<END
datasets: [{path: data.txt}]
loss_functions: [{function: cross_entropy}]
max_steps: 3
seed: 5
output_dir: run
END
sed -i '/^max_steps: 40$/d' recipe.yaml

refused() { # file, text... -- option...
    local file=$1 texts=()
    shift
    while [ "$1" != -- ]; do
        texts+=("$1")
        shift
    done
    shift
    expect 1 "$file" "$limbeck" train recipe.yaml -o "$file.run" "$@"
    one_error "$file"
    said "$file" "${texts[@]}"
    ! reached "$file.run" 1 || fail "it made steps"
}

say "threads: as the recipe says, unless the command line does; the same bits"
expect 0 one.log "$limbeck" train recipe.yaml -o one --set threads=1
said one.log "threads=1 "
expect 0 three.log "$limbeck" train recipe.yaml -o three --set threads=3
said three.log "threads=3 "
expect 0 two.log "$limbeck" --threads 2 train recipe.yaml -o two --set threads=3
said two.log "threads=2 "
same_student one three
same_student one two

say "a run that was made on other threads goes on"
expect 0 part.log "$limbeck" train recipe.yaml -o part --set threads=1 --set save_steps=1
expect 0 again.log "$limbeck" train recipe.yaml -o part --set threads=2 --set save_steps=1 --resume
said again.log "resumed"

say "metrics have every loss and every part of the held-out data by a name of its own"
parts=$(for n in $(seq 60); do echo "{path: data.txt, tag: part$n, max_tokens: 100},"; done | tr -d '\n')
expect 0 names.log "$limbeck" train recipe.yaml -o names --set "eval_datasets=[${parts%,}]" --set max_steps=1 \
    --set 'loss_functions=[{function: cross_entropy}, {function: cross_entropy, weight: 2}]'
holds -s '.[0] | [keys[] | select(startswith("loss"))] == ["loss", "loss/cross_entropy", "loss/cross_entropy.1"]' \
    names/metrics.jsonl
holds -s '.[1] | [keys[] | select(startswith("eval_perplexity/"))] | length == 60' names/metrics.jsonl
holds -s '.[1] | has("eval_perplexity_balanced")' names/metrics.jsonl

say "a teacher on a socket file, named from the recipe's folder"
"$limbeckd" t=one/student --listen unix:socket --port-file socket.port >socket.log 2>&1 &
pid[socket]=$!
await test -S socket
await is_up socket
mkdir recipes
sed 's|path: data.txt|path: ../data.txt|' recipe.yaml >recipes/taught.yaml
expect 0 taught.log "$limbeck" train recipes/taught.yaml -o taught --set max_steps=1 \
    --set 'teachers=[{name: T, url: "unix:../socket"}]' --set 'loss_functions=[{function: kl}]'
said taught/recipe.yaml "url: \"unix:/"
expect 0 hosted.log "$limbeck" eval unix:socket unix:socket data.txt
said hosted.log "mean of probabilities"
never_said hosted.log nan # nobody knows which token a mean likes best
drop socket

say "data that the student cannot read"
printf '\0\0\10\3\0\0\0\2\0\0\0\1\0\0\0\2\1\2\3\4' >two-images-idx3-ubyte
printf '\0\0\10\1\0\0\0\2\0\5' >two-labels-idx1-ubyte
printf '\0\0\10\3\0\0\0\2\0\0\0\1\0\0\0\3\1\2\3\4\5\6' >three-images-idx3-ubyte
refused kinds.log "--set eval_datasets.0: text and type: idx data do not mix" -- \
    --set 'eval_datasets=[{path: two-images-idx3-ubyte, labels: two-labels-idx1-ubyte}]'
cat >images.yaml <<END
student: {input_size: 2, hidden_sizes: [3], num_labels: 6}
datasets: [{path: two-images-idx3-ubyte, labels: two-labels-idx1-ubyte}]
loss_functions: [{function: cross_entropy}]
max_steps: 1
per_device_train_batch_size: 2
output_dir: images
END
expect 0 images.log "$limbeck" train images.yaml
expect 1 width.log "$limbeck" train images.yaml -o width \
    --set 'eval_datasets=[{path: three-images-idx3-ubyte, labels: two-labels-idx1-ubyte}]'
one_error width.log
said width.log "--set eval_datasets: items have 3 features, the student's input_size is 2"
! reached width 1 || fail "it made steps"
expect 1 classes.log "$limbeck" train images.yaml -o classes --set student.num_labels=5
said classes.log "label 5" "num_labels 5"
expect 1 model.log "$limbeck" train recipe.yaml -o model --set 'student={model: images/student}'
said model.log "recipe.yaml:" ": datasets: these are texts, the student reads images"

say "a classifier's inner layers, of other widths than its last"
expect 0 wide.log "$limbeck" train images.yaml -o wide --set 'student.hidden_sizes=[6, 3]'
taught=(--set 'teachers=[{name: T, url: "local:wide/student"}]' --set 'student.hidden_sizes=[5, 4]')
for layers in 0 1 2; do
    expect 0 layer.log "$limbeck" train images.yaml -o "layer$layers" "${taught[@]}" \
        --set "loss_functions=[{function: hs_mse, layer_mapping: [{student: $layers, teacher: $layers}]}]"
done
expect 1 layer.log "$limbeck" train images.yaml -o layer3 "${taught[@]}" \
    --set 'loss_functions=[{function: hs_mse, layer_mapping: [{student: 1, teacher: 3}]}]'
one_error layer.log
said layer.log "loss_functions.0.layer_mapping: teacher T has no layer 3, its last is 2"

say "a list is no recipe"
printf -- '- a\n- b\n' >list.yaml
expect 1 list.log "$limbeck" train list.yaml -o list --set max_steps=1
one_error list.log
said list.log "list.yaml:1: the file: must be a mapping of keys (key: value), not a list"

say "a tokenizer's and a model's configs as Python writes them"
cp -r one/student student
jq '. + {model_max_length: 7}' one/student/tokenizer_config.json |
    sed 's/"model_max_length": 7/"model_max_length": 1000000000000000019884624838656, "x": NaN, "x": -Infinity/' \
        >student/tokenizer_config.json
jq '. + {some_limit: 7}' one/student/config.json | sed 's/"some_limit": 7/"some_limit": Infinity/' >student/config.json
grep -q 19884624838656 student/tokenizer_config.json
grep -q Infinity student/config.json
"$limbeck" tokenize one/student 'a small bird' >right.ids
"$limbeck" tokenize student 'a small bird' >ids
cmp right.ids ids
expect 0 generate.log "$limbeck" generate student --prompt 'a small' --max-new-tokens 3
printf '\357\273\277{"text": "a small bird that can sing", "score": NaN}\n' >data.jsonl
expect 0 eval.log "$limbeck" eval student data.jsonl
expect 1 some.log "$limbeck" eval student data.jsonl --max-samples 1
one_error some.log
said some.log "data.jsonl: " "--max-samples are for images"
printf 'text,n\na,1\n' >table.csv
expect 1 table.log "$limbeck" eval student table.csv
one_error table.log
said table.log '"table.csv" is a table; write its column of texts as JSON lines'
