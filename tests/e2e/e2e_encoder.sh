#!/bin/bash
# An encoder over HTTP: its sentences teach one of its own layers and a narrower encoder; both are encoders again.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

# A teacher of 29 tokens.
mkdir -p teacher/1_Pooling
cp "$LB_SOURCE_ROOT"/tests/golden/model/bert/{config.json,model.safetensors} teacher/
letters >teacher/tokenizer.json
echo '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]' >teacher/modules.json
echo '{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}' >teacher/1_Pooling/config.json
awk 'BEGIN { x = 7; split("a b c d e f g h i l m n o r s t u w re set toe", w)
    for (i = 0; i < 200; i++) { line = ""; for (k = 0; k < 1 + i % 9; k++) { x = x * 16807 % 2147483647; line = line w[x % 21 + 1] " " } print line } }' >texts.txt

host teacher teacher
cat >recipe.yaml <<END
student: {layers_from: {model: teacher, layers: [1]}}
tokenizer: teacher
whole_texts: true
datasets: [{path: texts.txt}]
teachers: [{name: T, url: "${url[teacher]}"}]
loss_functions:
  - {function: embedding_cosine, weight: 1}
  - {function: hs_mse, weight: 0.1, layer_mapping: [{student: 1, teacher: 2}]}
  - {function: attention_mse, weight: 1, layer_mapping: [{student: 0, teacher: 1}]}
learning_rate: 1.0e-2
max_steps: 60
max_length: 16
per_device_train_batch_size: 8
save_steps: 30
logging_steps: 1
seed: 5
output_dir: run
END

say "a model that is cut short under who reads it"
cp -r teacher cut
mkfifo texts
start cut.log bash -c 'exec "$0" embed cut <texts' "$limbeck"
exec 5>texts
yes "a small bird" | head -n 20000 >&5 || true # more than a pipe holds: it reads, and has opened the model
truncate -s 0 cut/model.safetensors
exec 5>&-
ends_with 135 "$job" cut.log
said cut.log "limbeck: a file was cut short"

say "the teacher's sentences over HTTP are those that embed makes of its folder"
expect 0 embedded bash -c 'head -n 3 texts.txt | "$0" embed teacher --max-length 16' "$limbeck"
expect 1 folder bash -c '"$0" embed teacher <.' "$limbeck"
said folder "standard input: Is a directory"
ids=$(sed -n 3p texts.txt | "$limbeck" tokenize teacher --special | jq -cR 'split(" ") | map(tonumber)')
curl -sf "${url[teacher]}/v2/models/teacher/infer" -d "{\"inputs\": [{\"name\": \"input_ids\", \"datatype\": \"INT32\",
    \"shape\": [1, $(jq length <<<"$ids")], \"data\": $ids}]}" >answer.json
holds '.outputs[0].name == "sentence_embedding" and .outputs[0].shape == [1, 12]' answer.json
grep '^\[' embedded | sed -n 3p >third.json
holds -s '[.[0].outputs[0].data, .[1]] | transpose | all((.[0] - .[1]) | fabs < 1e-6)' answer.json third.json
curl -s "${url[teacher]}/v2/models/teacher/head" >head.json || true
said head.json "has no head that makes logits"

expect 0 probed "$limbeck" probe "${url[teacher]}"
said probed "sentence_embedding"

say "a student of the teacher's last layer learns; interrupted and resumed it is the same"
expect 0 run.log "$limbeck" train recipe.yaml
holds -s 'map(select(has("loss/embedding_cosine")) | .["loss/embedding_cosine"]) | (.[0:5] | add) > 3 * (.[-5:] | add)' run/metrics.jsonl
start part.log "$limbeck" train recipe.yaml -o part
await reached part 35
murder "$job"
expect 0 again.log "$limbeck" train recipe.yaml -o part --resume
same_student run part
holds '.num_hidden_layers == 1 and .architectures == ["BertModel"]' run/student/config.json
holds '.pooling_mode_mean_tokens' run/student/1_Pooling/config.json
said run/student/README.md "pipeline_tag: sentence-similarity" "SentenceTransformer"
holds 'length == 2' run/student/modules.json # as the teacher's: nothing is normalised

say "what it writes is a teacher again, and a narrower student learns from it through projections"
host second run/student
expect 0 narrow.log "$limbeck" train recipe.yaml -o narrow --set "teachers.0.url=${url[second]}" \
    --set 'student={model_type: bert, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 16}' \
    --set 'loss_functions=[{function: embedding_mse}, {function: hs_cosine}]'
holds -s 'map(select(has("loss/embedding_mse")) | .["loss/embedding_mse"]) | (.[0:5] | add) > 1.5 * (.[-5:] | add)' narrow/metrics.jsonl
holds 'length == 3' narrow/student/modules.json # a new one normalises
expect 0 timed bash -c '"$0" embed narrow --time <texts.txt' "$limbeck"
grep texts_per_second timed >timed.json
holds ".texts == 200 and .texts_per_second > 0" timed.json

say "what cannot be is refused before anything is computed"
expect 1 packed.log "$limbeck" train recipe.yaml -o x1 --set whole_texts=false
said packed.log "whole_texts: a bert is an encoder, which reads each text by itself"
expect 1 kl.log "$limbeck" train recipe.yaml -o x2 --set 'loss_functions=[{function: kl}]'
said kl.log "kl reads logits, which a bert without a head does not make"
expect 1 eval.log "$limbeck" train recipe.yaml -o x3 --set 'eval_datasets=[{path: texts.txt}]'
said eval.log "eval_datasets: a bert without a head predicts nothing"
expect 1 lair.log "$limbeck" train recipe.yaml -o x4 --set 'student.layers_from.layers=[2]'
said lair.log "student.layers_from: " "no layer 2; it has 0 to 1"
expect 1 generated.log "$limbeck" generate run --prompt a
said generated.log "a bert does not generate text"

say "the student as a GGUF file with its vocabulary is the same encoder"
expect 0 gguf.log "$limbeck" export run --format gguf --out s.gguf
expect 0 of_folder bash -c 'head -n 3 texts.txt | "$0" embed run' "$limbeck"
expect 0 of_file bash -c 'head -n 3 texts.txt | "$0" embed s.gguf' "$limbeck"
cmp of_folder of_file
host file s.gguf
curl -sf "${url[file]}/v2/models/file" >file.json
holds '[.outputs[].name] | any(. == "sentence_embedding")' file.json
