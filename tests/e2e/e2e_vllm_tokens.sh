#!/bin/bash
# Tokenizers of a teacher behind vLLM's dialect, which serves none: what the server makes of texts is held against the
# recipe's, one of its own is named, and a smaller one or another's teaches as by oip.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"
golden=$LB_SOURCE_ROOT/tests/golden/text

text nouns 400 1 >nouns.txt
mkdir llama2
cp "$golden/llama2.json" llama2/tokenizer.json
echo '{"bos_token": "<s>", "eos_token": "</s>"}' >llama2/tokenizer_config.json
for kind in own llama2; do
    base_recipe | sed "s|^max_steps: .*|max_steps: 40|; s|^max_length: .*|max_length: 48|; s|max_position_embeddings: 64|max_position_embeddings: 128|" >"$kind.yaml"
    printf 'datasets: [{path: nouns.txt}]\nloss_functions: [{function: cross_entropy}]\noutput_dir: %s-teacher\n' "$kind" >>"$kind.yaml"
done
sed -i 's|^tokenizer: .*|tokenizer: llama2|' llama2.yaml
expect 0 own.log "$limbeck" train own.yaml
expect 0 llama2.log "$limbeck" train llama2.yaml
host own own-teacher/student
host llama2 llama2-teacher/student

recipe() { # file, teacher's keys, losses
    base_recipe | sed 's|^max_steps: .*|max_steps: 10|' >"$1"
    cat >>"$1" <<END
datasets: [{path: nouns.txt}]
teachers: [{name: t, $2}]
targets: topk
loss_top_k: 20
fp16_targets: false
loss_functions: [$3]
seed: 1
output_dir: run
END
}
near() { # run, run, at most
    jq -n -e --slurpfile a <(jq .loss "$1/metrics.jsonl") --slurpfile b <(jq .loss "$2/metrics.jsonl") --argjson most "$3" '
        [$a, $b] | transpose | length >= 10 and all(.[0] - .[1] | . == null or fabs <= $most)' >/dev/null ||
        fail "$1 and $2 differ: $(jq -c .loss "$1/metrics.jsonl" | tr '\n' ' ') $(jq -c .loss "$2/metrics.jsonl" | tr '\n' ' ')"
}

say "another tokenizer than the recipe's: refused, with the text"
recipe other.yaml "url: \"${url[llama2]}\", protocol: vllm" "{function: kl}"
expect 1 other.log "$limbeck" train other.yaml
one_error other.log
said other.log "teacher t reads texts by another tokenizer than this recipe's" "of \"The quick" "let alm learn from it"
recipe wrong.yaml "url: \"${url[own]}\", protocol: vllm, tokenizer: llama2" "{function: alm}"
expect 1 wrong.log "$limbeck" train wrong.yaml
said wrong.log "than " "llama2" "name its own with tokenizer"
recipe same.yaml "url: \"${url[own]}\", protocol: vllm, tokenizer: own-teacher/student" "{function: kl}"
expect 0 same.log "$limbeck" train same.yaml --set output_dir=same

say "named, it teaches by alm as it does by oip"
recipe alm.yaml "url: \"${url[llama2]}\", protocol: vllm, tokenizer: llama2-teacher/student" "{function: alm}"
expect 0 alm.log "$limbeck" train alm.yaml --set output_dir=alm
said alm.log "unlike_tokenizer teacher=t"
recipe oip.yaml "url: \"${url[llama2]}\"" "{function: alm}"
expect 0 oip.log "$limbeck" train oip.yaml --set output_dir=oip
near alm oip 1e-6

say "a smaller one made of it: through the map, as by oip"
expect 0 trim.json "$limbeck" tokenizer trim own-teacher/student --corpus nouns.txt --size 280 --out small --json
recipe small.yaml "url: \"${url[own]}\", protocol: vllm" "{function: kl}"
expect 1 small.log "$limbeck" train small.yaml --set tokenizer=small --set output_dir=small-run
said small.log "does not serve its tokenizer" "with the teacher's tokenizer"
recipe small.yaml "url: \"${url[own]}\", protocol: vllm, tokenizer: own-teacher/student" "{function: kl}"
expect 0 small.log "$limbeck" train small.yaml --set tokenizer=small --set output_dir=small-vllm
said small.log trimmed_vocabulary
start plain.log python3 "$LB_SOURCE_ROOT/tests/e2e/proxy.py" "${url[own]}" plain.port no_maps # with a map it lists other ids
await test -s plain.port
recipe small.yaml "url: \"http://127.0.0.1:$(cat plain.port)\"" "{function: kl}"
expect 0 small.log "$limbeck" train small.yaml --set tokenizer=small --set output_dir=small-oip
near small-vllm small-oip 1e-5
