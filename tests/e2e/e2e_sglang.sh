#!/bin/bash
# A teacher that speaks SGLang's dialect teaches what the same teacher does natively, by lists of any length, of whole
# texts and of the answers of conversations alone. limbeckd stands in for the SGLang that somebody runs.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

say "a teacher"
make_teachers 60
text nouns 200 31 >train.nouns.txt
host nouns nouns/student
host other others/student

recipe() { # file, protocol and its keys, target's keys
    cat >"$1" <<END
output_dir: run
datasets:
  - {path: train.nouns.txt}
tokenizer: $tokenizer
max_length: 24
student: {model_type: llama, hidden_size: 24, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 2,
  num_key_value_heads: 1, max_position_embeddings: 64}
teachers:
  - {name: nouns, url: "${url[nouns]}", $2}
$3
fp16_targets: false
loss_functions:
  - {function: kl}
per_device_train_batch_size: 8
learning_rate: 4.0e-3
max_steps: 30
logging_steps: 1
seed: 5
END
}
losses() { # run folder
    jq -s -c '[.[] | .loss // empty]' "$1/metrics.jsonl"
}
# The largest distance of two runs' losses.
near() { # run, run, at most
    local far
    far=$(jq -n --argjson a "$(losses "$1")" --argjson b "$(losses "$2")" '[$a, $b] | transpose | map(.[0] - .[1] | fabs) | max')
    echo "losses of $1 and $2: at most $far apart"
    jq -n -e --argjson a "$(losses "$1")" --argjson far "$far" --argjson most "$3" '($a | length) == 30 and $a[29] < 0.8 * $a[0] and $far <= $most' >/dev/null ||
        fail "$1 and $2 are $far apart: $(losses "$1") $(losses "$2")"
}

say "top-48: by oip and by sglang"
recipe oip.yaml "protocol: oip" "targets: topk
loss_top_k: 48"
recipe sglang.yaml "protocol: sglang" "targets: topk
loss_top_k: 48"
expect 0 oip.log "$limbeck" train oip.yaml --output-dir oip
expect 0 sglang.log "$limbeck" train sglang.yaml --output-dir sglang
near oip sglang 1e-5
said nouns.log endpoint=sglang_generate

say "a probe is told that it is one, and says what it gives"
expect 0 probe.log "$limbeck" probe "${url[nouns]}" --protocol sglang
said probe.log "protocol               sglang" "own token, top-20, top-k, chosen ids" "1 only"

say "what cannot be asked is refused at the start, with what to do"
refused() { # text... ; the recipe is refused.yaml
    expect 1 refused.log "$limbeck" train refused.yaml --output-dir refused
    one_error refused.log
    said refused.log "$@"
    [ ! -e refused/metrics.jsonl ] || fail "a run began"
}
sed 's/^fp16/temperature: 2\nfp16/' sglang.yaml >refused.yaml
refused "temperature 1 only" "set temperature: 1"
sed 's/targets: topk/targets: logits/' sglang.yaml >refused.yaml
refused "does not give logits" "own token -> top-20 -> top-k -> chosen ids" "needs full logits"
sed 's/targets: topk/targets: final_hidden/' sglang.yaml >refused.yaml
refused "needs its output head" "protocol: sglang"

say "another model under the same name: the run ends, and its checkpoint is kept"
sed 's/^max_steps: 30/max_steps: 100000\nsave_steps: 1/' sglang.yaml >long.yaml
start long.log "$limbeck" train long.yaml --output-dir long
run=$job
await reached long 3
drop nouns
host nouns others/student
ends_with 1 "$run" long.log
one_error long.log
said long.log "another model answers now" "the fixed question"
compgen -G "long/checkpoint-*" >/dev/null || fail "no checkpoint: $(ls long)"

say "the cache knows whose answers it has"
drop nouns
host nouns nouns/student
sed 's/^fp16/cache_dir: cache\nfp16/' sglang.yaml >cached.yaml
expect 0 cached.log "$limbeck" train cached.yaml --output-dir cached
same_student sglang cached
expect 0 again.log "$limbeck" train cached.yaml --output-dir again
[ "$(done_number again.log teacher_requests)" -eq 0 ] || fail "the cache was not used"
drop nouns
expect 0 offline.log "$limbeck" train cached.yaml --output-dir offline
same_student sglang offline
