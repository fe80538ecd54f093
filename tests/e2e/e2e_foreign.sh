#!/bin/bash
# Recipes in the words of TRL, DistillKit and Axolotl: each is told key by key what became of it, trains, and is the
# recipe that --check prints; what is not understood is refused, all of it at once.
. "${LB_SOURCE_ROOT:?}/tests/e2e/dialect.sh"
host_teacher
base_recipe >pupil.yaml
cat >>pupil.yaml <<END
datasets: [{path: train.nouns.txt}]
loss_functions: [{function: cross_entropy}]
output_dir: pupil
END
expect 0 pupil.log "$limbeck" train pupil.yaml --set max_steps=1 --set student.hidden_size=24
for i in $(seq 64); do
    printf '{"messages":[{"role":"user","content":"%s"},{"role":"assistant","content":"%s"}]}\n' \
        "$(text nouns 1 "$i")" "$(text nouns 1 $((i + 100)))"
done >chat.jsonl
echo '{% for m in messages %}{{ m.role }}: {{ m.content }}; {% endfor %}' >chat.jinja
cp "$LB_SOURCE_ROOT"/tests/e2e/foreign/*.yaml .

# Trains by the file, and by what --check says that it is: one student. It has learnt.
understood() { # name, option...
    local name=$1
    shift
    say "$name"
    "$limbeck" train "$name.yaml" --check "$@" >"$name.ours.yaml" 2>"$name.notes" || fail "--check: $(cat "$name.notes")"
    expect 0 "$name.log" "$limbeck" train "$name.yaml" -o "$name" "$@"
    expect 0 "$name.ours.log" "$limbeck" train "$name.ours.yaml" -o "$name.ours"
    same_student "$name" "$name.ours"
    holds -s 'map(.loss // empty) | length == 30 and .[-1] < $most * .[0]' --argjson most "${most:-0.9}" "$name/metrics.jsonl"
}

understood trl_gkd
said trl_gkd.notes "trl_gkd.yaml: in TRL's words" \
    "trl_gkd.yaml:2: model_name_or_path: taken as student.model" \
    "trl_gkd.yaml:3: teacher_model_name_or_path: taken as teachers.0.url: local:nouns/student" \
    "trl_gkd.yaml:4: dtype: left out: " "warmup_steps: taken as warmup_ratio" "lmbda: taken: " \
    "beta: taken as loss_functions.0: {function: jsd, beta: 0.5}" "temperature: left out: GKD writes at it" \
    "save_strategy: taken as save_steps: 0"
said trl_gkd.ours.yaml 'pupil/student"' "function: \"jsd\"" "learning_rate: 0.004" "lr_scheduler_type: cosine"

sed -e 's/^lmbda: .*/lmbda: 0.5/; s/^max_new_tokens: .*/max_new_tokens: 8/; s/^dataset_name: .*/dataset_name: chat.jsonl/' \
    -e 's/^max_length: .*/max_length: 48/' trl_gkd.yaml >trl_written.yaml
understood trl_written --set chat_template=chat.jinja
said trl_written.notes "lmbda: taken" "completion_only_loss: true, which TRL takes" "temperature: taken as generation_temperature" "max_new_tokens: taken"
said trl_written.ours.yaml "lmbda: 0.5" "generation_temperature: 0.9" "max_new_tokens: 8"

understood trl_server --set teachers.0.url="${url[nouns]}" --set chat_template=chat.jinja
said trl_server.notes "teacher_model_server_url: taken as teachers.0: protocol vllm" "loss_top_k: taken, with targets: topk"
said nouns.log endpoint=completions

understood distillkit
said distillkit.notes "dataset.train_dataset: taken as datasets.0.path" "loss_functions.1: taken, with weight 0.5 " \
    "missing_probability_handling left out: distributions are whole" "training_args.learning_rate: taken"
said distillkit.ours.yaml "eval_steps: 10" "disable_dropout: false" "warmup_from_zero: true" "weight: 0.25"

sed 's/^micro_batch_size: .*/&\nadapter: lora\nlora_r: 4\nlora_alpha: 8\nlora_target_modules: [v_proj, down_proj]/; s/^learning_rate: .*/learning_rate: 5.0e-2/' \
    axolotl.yaml >axolotl_lora.yaml
most=1 understood axolotl_lora --set teachers.0.url="${url[nouns]}" --set chat_template=chat.jinja
said axolotl_lora.notes "adapter: taken as use_peft" "lora_target_modules: taken"

sed 's/^trust_remote_code: .*/frozen_modules: [model.embed_tokens]/' distillkit.yaml >distillkit_frozen.yaml
most=1 understood distillkit_frozen
said distillkit_frozen.ours.yaml 'frozen_parameters: ["model.embed_tokens.*"]'

understood axolotl --set teachers.0.url="${url[nouns]}" --set chat_template=chat.jinja
said axolotl.notes "kd_alpha: taken as loss_functions.0: {function: kl, weight: 0.9}" \
    "kd_ce_alpha: taken as loss_functions.1: {function: cross_entropy, weight: 0.1}" \
    "with a difference: the rest of a list is one bucket" "micro_batch_size: taken as per_device_train_batch_size"

say "TRL's seq_kd: the teacher writes"
sed -e 's/^seq_kd: .*/seq_kd: true/; s/^output_dir: .*/output_dir: run-seq/; s/^max_steps: .*/max_steps: 3/' \
    -e 's/^dataset_name: .*/dataset_name: prompts.jsonl/' trl_gkd.yaml >trl_seq.yaml
jq -cR 'split(" ") | {prompt: (.[:2] | join(" ")), completion: (" " + (.[2:] | join(" ")))}' train.nouns.txt >prompts.jsonl
expect 0 trl_seq.log "$limbeck" train trl_seq.yaml --set tokenizer="$tokenizer"
said trl_seq.log "teachers_wrote texts=" "taken: the teacher's texts are learnt from"

say "what is not understood: all of it, by name; what --set gives is no mistake"
sed -e 's/^beta: .*/beta: 1.5/; s/^dataset_name: .*/dataset_name: trl-lib\/chatbot_arena_completions/; s/^optim: .*/optim: adafactor/' \
    -e 's/^seq_kd: .*/reverse_kl_top_1_mode: forward/; s/^learning_rate: .*/learning_rate: fast/; s/^bf16:/bf17:/; $a use_dora: true' trl_gkd.yaml >wrong.yaml
expect 1 wrong.log "$limbeck" train wrong.yaml
said wrong.log "limbeck: wrong.yaml:6: dataset_name: \"trl-lib/chatbot_arena_completions\" is no file" "wrong.yaml:18: loss_functions.0: jsd: " \
    "wrong.yaml:8: learning_rate: \"fast\" is not a number" "wrong.yaml:21: reverse_kl_top_1_mode: " "wrong.yaml:22: bf17: " \
    "wrong.yaml:23: optim: \"adafactor\" is not one of adamw_torch" "wrong.yaml:31: use_dora: adapters are LoRA"
[ "$(grep -c '^limbeck: ' wrong.log)" -eq 7 ] || fail "not seven mistakes: $(cat wrong.log)"
expect 1 set.log "$limbeck" train wrong.yaml --set datasets.0.path=train.nouns.txt
never_said set.log dataset_name
sed 's/^    temperature: .*/    temprature: 2/; s/^    disk_path: test.*/&\n    splitt: x/' distillkit.yaml >within.yaml
expect 1 within.log "$limbeck" train within.yaml
said within.log "dataset.eval_dataset.splitt: is no key of DistillKit's that is known here; did you mean split?" \
    "loss_functions.1.temprature: is no key of DistillKit's that is known here; did you mean temperature?"
