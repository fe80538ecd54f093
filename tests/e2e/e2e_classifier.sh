#!/bin/bash
# Classifiers of texts over HTTP: one learns from labels, is hosted, and teaches smaller ones by its logits and states.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

# Texts of letters; those with an e are hot, else those with an o warm, else cold.
records() { # lines, seed
    awk -v lines="$1" -v seed="$2" 'BEGIN { x = seed; n = split("a b c d f g h i l m n r s t u w e o", w)
        for (i = 0; i < lines; i++) { line = ""; hot = warm = 0
            for (k = 0; k < 2 + i % 4; k++) { x = x * 16807 % 2147483647; c = w[int(x / 11) % n + 1]; line = line c " "
                hot = hot || c == "e"; warm = warm || c == "o" }
            printf "{\"text\": \"%s\", \"label\": \"%s\"}\n", line, hot ? "hot" : warm ? "warm" : "cold" } }'
}
records 600 7 >learn.jsonl
records 200 8 >held.jsonl
jq -c '.label = ({"cold": 0, "warm": 1, "hot": 2}[.label])' learn.jsonl >numbers.jsonl
jq -c 'del(.label)' learn.jsonl >bare.jsonl

mkdir begun
cp "$LB_SOURCE_ROOT"/tests/golden/model/bert_classes/{config.json,model.safetensors} begun/
letters >begun/tokenizer.json
echo '{"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}' >begun/tokenizer_config.json
cat >teacher.yaml <<END
student: {model: begun}
whole_texts: true
datasets: [{path: learn.jsonl}]
eval_datasets: [{path: held.jsonl}]
loss_functions: [{function: cross_entropy}]
learning_rate: 1.0e-2
max_steps: 250
max_length: 16
per_device_train_batch_size: 16
logging_steps: 1
output_dir: T
END
cat >student.yaml <<END
student: {model_type: bert, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
    max_position_embeddings: 16, num_labels: 3}
tokenizer: begun
whole_texts: true
datasets: [{path: bare.jsonl}]
eval_datasets: [{path: held.jsonl}]
teachers: [{name: T, url: "http://127.0.0.1:1"}]
temperature: 2
loss_functions:
  - {function: kl, weight: 1}
  - {function: hs_mse, weight: 0.1, layer_mapping: [{student: 1, teacher: 1}]}
  - {function: hs_cosine, weight: 0.1}
learning_rate: 2.0e-2
max_steps: 150
max_length: 16
per_device_train_batch_size: 16
save_steps: 75
logging_steps: 1
cache_dir: cache
output_dir: S
END

say "from labels by name to a teacher that is right"
expect 0 T.log "$limbeck" train teacher.yaml
said T.log "step 250: held-out loss"
holds -s 'map(.eval_accuracy // empty) | length == 1 and .[0] > 0.95' T/metrics.jsonl
expect 0 own.json "$limbeck" eval T held.jsonl --json
holds -n --slurpfile a own.json --slurpfile m T/metrics.jsonl '[$m[] | .eval_error // empty] == [$a[0].all.error_percent]'
holds '.all.samples == 200 and (.classes | length == 3 and (map(.samples) | add == 200)) and (has("balanced_perplexity") | not)' own.json
expect 0 own.txt "$limbeck" eval T held.jsonl
said own.txt "texts" "warm" "texts/s"
expect 0 numbers.log "$limbeck" train teacher.yaml -o numbers --set datasets.0.path=numbers.jsonl
same_student T numbers
holds '.id2label == {"0": "cold", "1": "warm", "2": "hot"} and .label2id.hot == 2 and .architectures == ["BertForSequenceClassification"]' \
    T/student/config.json
said T/student/README.md "pipeline_tag: text-classification"

say "hosted: logits of each text, and what its classes are called"
host T T/student
curl -sf "${url[T]}/v2/models/T" >info.json
holds '.parameters | .num_labels == 3 and .vocab_size == 29 and .id2label["2"] == "hot" and .problem_type == "single_label_classification"' info.json
holds '[.outputs[] | select(.name == "logits" or .name == "hidden_states.final" or .name == "hidden_states.1") | .shape]
    == [[-1, 3], [-1, 12], [-1, -1, 12]]' info.json
ask='{"inputs": [{"name": "input_ids", "datatype": "INT32", "shape": [2, 5], "data": [[4, 22, 6, 5, 0], [4, 6, 7, 8, 5]]},
    {"name": "lengths", "datatype": "INT32", "shape": [2], "data": [4, 5]}]'
curl -sf "${url[T]}/v2/models/T/infer" -d "$ask}" >top.json
holds '[.outputs[].shape] == [[2, 3], [2, 3], [2]] and .outputs[0].data[3] == 0' top.json # a b c is cold
curl -sf "${url[T]}/v2/models/T/infer" -d "$ask, \"outputs\": [{\"name\": \"logits\"}, {\"name\": \"hidden_states.1\"}]}" >logits.json
holds '.outputs[0].shape == [2, 3] and .outputs[1].shape == [2, 5, 12]' logits.json
curl -sf "${url[T]}/v2/models/T/infer" -d "$(jq -c '.inputs += [{name: "start", datatype: "INT32", shape: [2], data: [1, 3]}] |
    .outputs = [{name: "logits"}, {name: "hidden_states.1"}, {name: "hidden_states.final"}]' <<<"$ask}")" >start.json
holds -n --slurpfile a logits.json --slurpfile b start.json '$a[0].outputs[0] == $b[0].outputs[0]
    and $b[0].outputs[1].shape == [2, 3, 12] and $b[0].outputs[1].data[0:12] == $a[0].outputs[1].data[12:24] and $b[0].outputs[2].shape == [2, 12]'
curl -s "${url[T]}/v2/models/T/infer" -d "$ask, \"outputs\": [{\"name\": \"logprobs.actual\"}]}" >refused.json
said refused.json "a classifier has no next token"
holds '[.inputs[].name] == ["input_ids", "lengths", "start"]' info.json
curl -s "${url[T]}/v2/models/T/infer" -d "$(jq -c '.inputs += [{name: "score_ids", datatype: "INT32", shape: [2, 5, 1], data: [range(10) | 1]}]' <<<"$ask}")" >scored.json
said scored.json "input score_ids: this model has no such input; it takes input_ids, lengths, start"
# Texts that begin alike are drawn from apart; what decides is all of a text, not where rows start.
jq -nc '[range(6; 28) | [4, ., 5]] | {inputs: [{name: "input_ids", datatype: "INT32", shape: [length, 3], data: .}], outputs: [{name: "samples.ids"}],
    parameters: {sample_count: 1, sample_temperature: 100, seed: 1}}' >draw.json
curl -sf "${url[T]}/v2/models/T/infer" -d @draw.json >drawn.json
holds '.outputs[0].data | length == 22 and (unique | length) == 3' drawn.json
curl -sf "${url[T]}/v2/models/T/infer" -d "$(jq -c '.inputs += [{name: "start", datatype: "INT32", shape: [22], data: [range(22) | 2]}]' draw.json)" >later.json
holds -n --slurpfile a drawn.json --slurpfile b later.json '$a[0].outputs == $b[0].outputs'
expect 0 hosted.json "$limbeck" eval "${url[T]}" held.jsonl --max-length 16 --json
holds -n --slurpfile a own.json --slurpfile b hosted.json '$a[0].all as $x | $b[0].models[0].all as $y |
    $x.error_percent == $y.error_percent and ($x.loss - $y.loss | fabs < 1e-6)'
awk 'BEGIN { for (i = 0; i < 20; i++) { printf "{\"text\": \""; for (k = 0; k < 40 + i; k++) printf "%s ", k < 10 ? "a" : k < 29 ? "b" : "e"
    print "\", \"label\": \"hot\"}" } }' >long.jsonl # as long as it reads, the first e comes last
expect 0 own.json "$limbeck" eval T long.jsonl --max-length 32 --json
expect 0 hosted.json "$limbeck" eval "${url[T]}" long.jsonl --json
holds -n --slurpfile a own.json --slurpfile b hosted.json '$a[0].all.loss - $b[0].models[0].all.loss | fabs < 1e-6'
expect 1 bare.log "$limbeck" eval "${url[T]}" bare.jsonl --max-length 16
said bare.log "600 of the 600 texts have no label to compare with"
expect 0 probed "$limbeck" probe "${url[T]}"
said probed "vocab_size             29" "classes                3"

say "texts without labels: its logits and states teach a smaller one; interrupted and resumed it is the same"
here=(--set "teachers.0.url=${url[T]}")
expect 0 S.log "$limbeck" train student.yaml "${here[@]}"
holds -s 'map(.eval_accuracy // empty) | .[-1] > 0.9' S/metrics.jsonl
holds -s 'map(.["loss/kl"] // empty) | (.[0:5] | add) > 2 * (.[-5:] | add)' S/metrics.jsonl
holds '.id2label["1"] == "warm"' S/student/config.json # as its teacher calls them
start part.log "$limbeck" train student.yaml "${here[@]}" -o part
await reached part 80
murder "$job"
expect 0 again.log "$limbeck" train student.yaml "${here[@]}" -o part --resume
same_student S part

say "every lane tells the same, and two teachers are mixed by the labels"
for lane in final_hidden logits topk; do
    expect 0 "$lane.log" "$limbeck" train student.yaml "${here[@]}" -o "$lane" --set "targets=$lane" --set loss_top_k=3 --set fp16_targets=false \
        --set max_steps=3
done
holds -n --slurpfile a final_hidden/metrics.jsonl --slurpfile b logits/metrics.jsonl --slurpfile c topk/metrics.jsonl '
    [$a, $b, $c] | map(map(.["loss/kl"] // empty)) | transpose | length == 3 and all((max - min) < 1e-5 * max)'
host U begun
for mixture in ca_mkd mean_probs mean_logits mean_losses entropy dynamic select aekd random; do
    expect 0 "$mixture.log" "$limbeck" train student.yaml -o "$mixture" --set "mixture=$mixture" --set max_steps=3 --set datasets.0.path=learn.jsonl \
        --set "teachers=[{name: T, url: '${url[T]}'}, {name: U, url: '${url[U]}'}]" \
        --set 'loss_functions=[{function: kl}, {function: cross_entropy, weight: 0.2}]'
    holds -s '[.[] | select(.loss) | .["weight/T"] + .["weight/U"] - 1 | fabs] | length == 3 and max < 1e-6' "$mixture/metrics.jsonl"
done
holds -s '.[0]["weight/T"] > 0.6' ca_mkd/metrics.jsonl

say "a student of its own layer, of another family, exported and hosted"
expect 0 layers.log "$limbeck" train student.yaml "${here[@]}" -o layers --set 'student={layers_from: {model: T/student, layers: [0]}}' --set max_steps=2
expect 0 distil.log "$limbeck" train student.yaml "${here[@]}" -o distil --set max_steps=400 \
    --set 'student={model_type: distilbert, dim: 8, hidden_dim: 16, n_layers: 1, n_heads: 2, max_position_embeddings: 16, num_labels: 3}'
holds -s 'map(.eval_accuracy // empty) | .[-1] > 0.9' distil/metrics.jsonl
expect 0 roberta.log "$limbeck" train student.yaml "${here[@]}" -o roberta --set max_steps=2 \
    --set 'student={model_type: roberta, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 18, num_labels: 3}'
holds '.pad_token_id == 0 and .max_position_embeddings == 18 and .architectures == ["RobertaForSequenceClassification"]' roberta/student/config.json
expect 0 exported.log "$limbeck" export distil --format hf --out exported
host V exported
curl -sf "${url[V]}/v2/models/V/infer" -d "$ask, \"outputs\": [{\"name\": \"logits.topk_ids\"}]}" >V.json
holds '.outputs[0].data[3] == 0' V.json

say "a new head on an encoder, and on one of its layers"
cp -r begun base
cp "$LB_SOURCE_ROOT"/tests/golden/model/bert/{config.json,model.safetensors} base/
for student in '{model: base, num_labels: 3}' '{layers_from: {model: base, layers: [1]}, num_labels: 3}'; do
    rm -rf headed
    expect 0 headed.log "$limbeck" train student.yaml "${here[@]}" -o headed --set "student=$student" --set max_steps=300 --set learning_rate=1.0e-2 --set cache_dir=null \
        --set 'loss_functions=[{function: kl}]'
    holds -s 'map(.eval_accuracy // empty) | .[-1] > 0.9' headed/metrics.jsonl
    holds '.id2label["2"] == "hot" and .architectures == ["BertForSequenceClassification"]' headed/student/config.json
done
holds '.num_hidden_layers == 1' headed/student/config.json

say "what does not fit is refused before anything is computed"
refuses() { # text, options...
    local text=$1
    shift
    expect 1 refused.log "$limbeck" train student.yaml "${here[@]}" -o refused --set cache_dir=null "$@"
    one_error refused.log
    said refused.log "$text"
    rm -rf refused
}
refuses "teacher T tells 3 classes of texts apart (num_labels), the student 4" --set student.num_labels=4
refuses "datasets: 600 of 600 texts have no label, which cross_entropy learns from" --set 'loss_functions=[{function: cross_entropy}, {function: kl}]'
refuses "datasets: 600 of 600 texts have no label, which ca_mkd learns from" --set mixture=ca_mkd
refuses "mixture: aekd weighs teachers by their gradients at the student's logits, and no loss on distributions (kl, ...) learns from T" --set mixture=aekd \
    --set 'loss_functions=[{function: hs_mse, layer_mapping: [{student: -1, teacher: -1}]}]'
refuses "eval_datasets: 600 of 600 texts have no label to compare with" --set eval_datasets.0.path=bare.jsonl --set eval_steps=100 --set max_steps=1
refuses "whole_texts: a bert is an encoder, which reads each text by itself" --set whole_texts=false
refuses "it has a head that tells classes apart already; drop num_labels" --set 'student={model: begun, num_labels: 3}'
refuses "give each an entry of its own" \
    --set 'loss_functions=[{function: hs_mse, layer_mapping: [{student: 1, teacher: 1}, {student: -1, teacher: -1}]}]'
refuses "compare -1 with a classifier's -1" --set 'loss_functions=[{function: hs_mse, layer_mapping: [{student: -1, teacher: 1}]}]'
refuses "datasets.0.label_field: this bert does not classify texts; drop the key" --set 'student={model: base}' --set datasets.0.label_field=kind
sed 's/hot/tepid/' learn.jsonl >tepid.jsonl
refuses 'the label "tepid" is the name of no class' --set datasets.0.path=tepid.jsonl
jq -c '.label = 3' learn.jsonl >three.jsonl
refuses "three.jsonl:1: the line: label is 3, the model has num_labels 3" --set datasets.0.path=three.jsonl
{ head -n 3 learn.jsonl && head -n 3 numbers.jsonl; } >both.jsonl
refuses "labels are numbers in some lines and names in others" --set datasets.0.path=both.jsonl
jq '.id2label["2"] = "boiling"' T/student/config.json >config.json
cp -r begun other
mv config.json other/config.json
host other other
expect 1 named.log "$limbeck" eval "${url[T]}" "${url[other]}" held.jsonl --max-length 16
said named.log 'T calls class 2 "hot", other "boiling" (id2label): they are not scored together'
refuses 'teacher O calls class 2 "boiling", the student "hot"' --set "teachers=[{name: T, url: '${url[T]}'}, {name: O, url: '${url[other]}'}]"
jq '.problem_type = "multi_label_classification"' T/student/config.json >other/config.json
drop other
host other other
refuses "teacher O has problem_type multi_label_classification" --set "teachers=[{name: O, url: '${url[other]}'}]"
refuses "eval_datasets: the student has problem_type multi_label_classification" --set 'student={model: other}' --set 'loss_functions=[{function: hs_mse}]'
for model in other "${url[other]}"; do
    expect 1 several.log "$limbeck" eval "$model" held.jsonl
    said several.log "has problem_type multi_label_classification: only classifiers of which one class holds"
done
expect 1 generated.log "$limbeck" generate T --prompt a
said generated.log "does not generate text"
expect 1 gguf.log "$limbeck" export T --format gguf --out T.gguf
