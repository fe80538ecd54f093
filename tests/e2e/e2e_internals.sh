#!/bin/bash
# The internals of a larger model into a smaller one, over HTTP: which layers, and every loss on them.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

text nouns 300 1 >texts.txt
base_recipe | sed 's/^max_steps: .*/max_steps: 3/' >base.yaml
cat base.yaml - >teacher.yaml <<END
datasets: [{path: texts.txt}]
loss_functions: [{function: cross_entropy}]
output_dir: teacher
END
expect 0 teacher.log "$limbeck" train teacher.yaml --set max_steps=2 --set student.num_hidden_layers=6 --set student.hidden_size=24
host deep teacher/student
cat base.yaml - >recipe.yaml <<END
datasets: [{path: texts.txt}]
teachers: [{name: T, url: "${url[deep]}"}]
loss_functions: [{function: kl}]
output_dir: run
END

say "layers by their numbers"
expect 0 run.log "$limbeck" train recipe.yaml --set student.num_hidden_layers=3 --set 'loss_functions=[
    {function: hs_mse, layer_mapping: uniform}, {function: hs_cosine, layer_mapping: skip},
    {function: attention_mse, layer_mapping: last}, {function: kl}]'
said run.log "loss=hs_mse teacher=T student:teacher=0:0,1:2,2:4,3:6" "loss=hs_cosine teacher=T student:teacher=1:2,2:4" \
    "loss=attention_mse teacher=T student:teacher=0:3,1:4"
said run/recipe.yaml "layer_mapping: uniform" "layer_mapping: skip" "layer_mapping: last"
expect 0 listed.log "$limbeck" train recipe.yaml -o listed --set student.num_hidden_layers=3 --set 'loss_functions=[
    {function: hs_mse, layer_mapping: [{student: 0, teacher: 0}, {student: 1, teacher: 2}, {student: 2, teacher: 4}, {student: 3, teacher: 6}]},
    {function: hs_cosine, layer_mapping: [{student: 1, teacher: 2}, {student: 2, teacher: 4}]},
    {function: attention_mse, layer_mapping: [{student: 0, teacher: 3}, {student: 1, teacher: 4}]}, {function: kl}]'
same_student run listed
expect 1 deeper.log "$limbeck" train recipe.yaml -o deeper --set student.num_hidden_layers=7 \
    --set 'loss_functions=[{function: hs_mse, layer_mapping: uniform}]'
one_error deeper.log
said deeper.log "loss_functions.0.layer_mapping: the student has 7 layers, teacher T has 6"

say "projections between unlike widths are kept with the run, and not exported"
expect 0 kept.log "$limbeck" train recipe.yaml -o kept --set max_steps=4 --set save_steps=2 \
    --set 'loss_functions=[{function: hs_mse}, {function: hs_cosine}]'
grep -qa 'projection.0.0.weight' kept/checkpoint-2/* || fail "the checkpoint has no projection"
! grep -qa 'projection' kept/student/* || fail "the student has a projection"
cp -r kept again
rm -r again/student again/checkpoint-4
expect 0 again.log "$limbeck" train recipe.yaml -o again --resume --set max_steps=4 --set save_steps=2 \
    --set 'loss_functions=[{function: hs_mse}, {function: hs_cosine}]'
same_student kept again

# Losses fall in a run of that recipe, resumed from its middle it has the same student, and so has one by other threads.
learns() { # name, loss functions, metrics that fall, options...
    local name=$1 losses=$2 metrics=$3 metric
    shift 3
    expect 0 "$name.log" "$limbeck" train recipe.yaml -o "$name" --set max_steps=12 --set save_steps=6 --set "loss_functions=[$losses]" "$@"
    for metric in $metrics; do
        holds -s --arg m "loss/$metric" 'map(select(has($m)) | .[$m]) | .[0] > 0 and (.[-3:] | add / 3) < .[0]' "$name/metrics.jsonl"
    done
    cp -r "$name" "$name.again"
    rm -r "$name.again/student" "$name.again/checkpoint-12"
    expect 0 "$name.again.log" "$limbeck" train recipe.yaml -o "$name.again" --resume --set max_steps=12 --set save_steps=6 \
        --set "loss_functions=[$losses]" "$@" --set threads=3
    same_student "$name" "$name.again"
}

say "every loss on hidden states and attention, of a decoder"
learns decoder '{function: pkd, layer_mapping: skip}, {function: similarity_preserving, layer_mapping: uniform},
    {function: attention_transfer, layer_mapping: skip, weight: 10}, {function: attention_kl, layer_mapping: uniform}' \
    'pkd similarity_preserving attention_transfer attention_kl' --set student.num_hidden_layers=3

learns relations '{function: minilm_qq}, {function: minilm_kk, layer_mapping: uniform, relation_heads: 2},
    {function: minilm_vv, layer_mapping: [{student: 0, teacher: 4}]}' 'minilm_qq minilm_kk minilm_vv' --set cache_dir=cache
expect 0 cached.log "$limbeck" train recipe.yaml -o cached --set max_steps=12 --set save_steps=6 --set cache_dir=cache --set 'loss_functions=[
    {function: minilm_qq}, {function: minilm_kk, layer_mapping: uniform, relation_heads: 2}, {function: minilm_vv, layer_mapping: [{student: 0, teacher: 4}]}]'
said cached.log teacher_requests=0
same_student relations cached
expect 1 heads.log "$limbeck" train recipe.yaml -o heads --set 'loss_functions=[{function: minilm_vv, relation_heads: 5}]'
one_error heads.log
said heads.log "loss_functions.0.relation_heads: 5 heads do not divide the student's 16 columns and the 12 of values.5"
for mapping in uniform '[{student: 0, teacher: 0}]'; do
    expect 1 others.log "$limbeck" train recipe.yaml -o others --set teachers.0.protocol=vllm --set teachers.0.model=deep \
        --set "loss_functions=[{function: minilm_vv, layer_mapping: $mapping}]"
    one_error others.log
    said others.log loss_functions.0 "teacher T does not "
done

say "recipes of the field, of a decoder"
learns distilbert '{function: kl, weight: 5}, {function: cross_entropy, weight: 2}, {function: hs_cosine, weight: 1}' cross_entropy \
    --set temperature=2 --set 'student={layers_from: {model: teacher/student, layers: [0, 2, 4]}}'
learns tinybert '{function: hs_mse, layer_mapping: uniform}, {function: attention_mse, layer_mapping: uniform}, {function: kl}' hs_mse

say "and of an encoder, with its sentences"
mkdir -p bert/1_Pooling
cp "$LB_SOURCE_ROOT"/tests/golden/model/bert/{config.json,model.safetensors} bert/
letters >bert/tokenizer.json
echo '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]' >bert/modules.json
echo '{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}' >bert/1_Pooling/config.json
host bert bert
encoder=(--set 'student={model_type: bert, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2, max_position_embeddings: 32}'
    --set tokenizer=bert --set whole_texts=true --set "teachers.0.url=${url[bert]}")
learns encoder '{function: pkd, first_token: true, layer_mapping: skip}, {function: similarity_preserving, layer_mapping: uniform},
    {function: attention_kl, layer_mapping: uniform}, {function: embedding_similarity}, {function: minilm_kk}, {function: minilm_vv},
    {function: embedding_contrastive, contrast_temp: 0.2}, {function: hs_contrastive, layer_mapping: skip}' \
    'pkd similarity_preserving attention_kl embedding_similarity minilm_kk minilm_vv embedding_contrastive hs_contrastive' "${encoder[@]}"
expect 1 cut.log "$limbeck" train recipe.yaml -o cut "${encoder[@]}" --set gradient_accumulation_steps=2 \
    --set 'loss_functions=[{function: embedding_similarity}]'
one_error cut.log
said cut.log "loss_functions.0: embedding_similarity compares the samples of a batch with each other"
expect 1 first.log "$limbeck" train recipe.yaml -o first --set 'loss_functions=[{function: pkd, first_token: true}]'
one_error first.log
said first.log "loss_functions.0.first_token: a llama's first position has seen nothing of the text"
