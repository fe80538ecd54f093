#!/bin/bash
# A teacher behind llama.cpp's server, which tells what follows a text only, teaches what the same teacher does natively by
# lists; of conversations the answers alone are asked about. llamacpp.py stands in for the server that somebody runs.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"
command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }

say "a teacher"
make_teachers 60
text nouns 60 31 >train.nouns.txt
host nouns nouns/student
start stand_in.log python3 "$LB_SOURCE_ROOT/tests/e2e/llamacpp.py" "${url[nouns]}" stand_in.port 2048
await test -s stand_in.port
llama=http://127.0.0.1:$(cat stand_in.port)

recipe() { # file, protocol, url
    cat >"$1" <<END
output_dir: run
datasets:
  - {path: train.nouns.txt}
tokenizer: $tokenizer
max_length: 24
student: {model_type: llama, hidden_size: 24, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 2,
  num_key_value_heads: 1, max_position_embeddings: 64}
teachers:
  - {name: nouns, url: "$3", protocol: $2}
targets: topk
loss_top_k: 30
fp16_targets: false
loss_functions:
  - {function: kl}
per_device_train_batch_size: 4
learning_rate: 4.0e-3
max_steps: 10
logging_steps: 1
seed: 5
END
}
losses() { # run folder
    jq -s -c '[.[] | .loss // empty]' "$1/metrics.jsonl"
}
near() { # run, run
    jq -n -e --argjson a "$(losses "$1")" --argjson b "$(losses "$2")" \
        '($a | length) == 10 and ([$a, $b] | transpose | map(.[0] - .[1] | fabs) | max) <= 1e-5' >/dev/null ||
        fail "losses of $1 and $2 are apart: $(losses "$1") $(losses "$2")"
}

say "top-30: by oip and by llamacpp"
recipe oip.yaml oip "${url[nouns]}"
recipe llama.yaml llamacpp "$llama"
expect 0 oip.log "$limbeck" train oip.yaml --output-dir oip
expect 0 llama.log "$limbeck" train llama.yaml --output-dir llama
near oip llama

say "a probe knows it, and says what it gives"
expect 0 probe.log "$limbeck" probe "$llama"
said probe.log "model m.gguf" llamacpp "top-20, top-k" "1 only" "2048"
never_said probe.log "own token," "chosen ids,"

say "conversations: positions that do not count are no texts"
for i in 1 2 3 4 5 6 7 8; do
    printf '{"messages":[{"role":"user","content":"%s"},{"role":"assistant","content":"yes"}]}\n' "$(text nouns 1 "$i" | cut -c 1-30)"
done >chat.jsonl
echo '{% for m in messages %}{{ m.role }}: {{ m.content }}; {% endfor %}' >chat.jinja
chat() { # file
    sed -i -e 's/train.nouns.txt}/chat.jsonl}/' -e 's/^max_length: 24/max_length: 40/' "$1"
    echo 'chat_template: chat.jinja' >>"$1"
}
chat oip.yaml
chat llama.yaml
expect 0 oip_chat.log "$limbeck" train oip.yaml --output-dir oip_chat
expect 0 llama_chat.log "$limbeck" train llama.yaml --output-dir llama_chat
near oip_chat llama_chat

say "what it does not tell is refused at the start, with what to do"
refused() { # text... ; the recipe is refused.yaml
    expect 1 refused.log "$limbeck" train refused.yaml --output-dir refused
    one_error refused.log
    said refused.log "$@"
    [ ! -e refused/metrics.jsonl ] || fail "a run began"
}
recipe llama.yaml llamacpp "$llama"
sed 's/^fp16/temperature: 2\nfp16/' llama.yaml >refused.yaml
refused "temperature 1 only" "set temperature: 1"
sed 's/targets: topk/targets: logits/' llama.yaml >refused.yaml
refused "does not give logits" "needs full logits"
sed "s#$llama#${url[nouns]}#" llama.yaml >refused.yaml
refused "n_vocab" "is it llama.cpp"

say "another model behind the same name: the run ends"
sed 's/^max_steps: 10/max_steps: 100000/' llama.yaml >long.yaml
start long.log "$limbeck" train long.yaml --output-dir long
run=$job
await reached long 2
drop nouns
host nouns others/student
ends_with 1 "$run" long.log
one_error long.log
said long.log "another model answers now" "the fixed question"
