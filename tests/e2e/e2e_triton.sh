#!/bin/bash
# A teacher behind a server of the Open Inference Protocol whose tensors have other names, datatypes and shapes teaches
# what the same teacher does natively. triton.py stands in for Triton with TensorRT-LLM's backend.
. "${LB_SOURCE_ROOT:?}/tests/e2e/dialect.sh"
command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }

stand_in() { # name, option...
    local name=$1
    shift
    start "$name.log" python3 "$LB_SOURCE_ROOT/tests/e2e/triton.py" "${url[nouns]}" "$name.port" "$@"
    await test -s "$name.port"
    url[$name]=http://127.0.0.1:$(cat "$name.port")
}

host_teacher
stand_in triton
stand_in half --dtype FP16
stand_in flat --flat --dtype BF16
stand_in text --flat --json
names="names: {input_ids: input_ids, lengths: input_lengths, logits: context_logits}"
extra="extra_inputs: {request_output_len: 1, return_context_logits: true}"
batched="protocol: oip, model: tensorrt_llm, $names, $extra, tokenizer: $tokenizer"
flat="protocol: oip, names: {input_ids: tokens, attention_mask: mask, logits: scores}, tokenizer: $tokenizer"

say "top-30 at temperature 2, and all logits: by limbeckd's names and by the server's"
for targets in "topk
loss_top_k: 30
temperature: 2" "logits
temperature: 2"; do
    recipe oip.yaml "protocol: oip" "targets: $targets"
    recipe named.yaml "$batched" "targets: $targets" "${url[triton]}"
    rm -rf oip named
    expect 0 oip.log "$limbeck" train oip.yaml --output-dir oip
    expect 0 named.log "$limbeck" train named.yaml --output-dir named
    near oip named 0
    same_student oip named
done

say "FP16, BF16 without a batch dimension, and numbers in JSON"
recipe half.yaml "$batched" "targets: logits" "${url[half]}"
recipe flat.yaml "$flat" "targets: logits" "${url[flat]}"
recipe text.yaml "$flat" "targets: logits" "${url[text]}"
recipe plain.yaml "protocol: oip" "targets: logits"
for run in plain half flat text; do
    expect 0 $run.log "$limbeck" train $run.yaml --output-dir $run
done
near plain text 0
near plain half 1e-3
near plain flat 1e-2

say "a probe says what it gives"
expect 0 probe.log "$limbeck" probe "${url[triton]}" --name input_ids=input_ids --name lengths=input_lengths --name logits=context_logits \
    --extra-input request_output_len=1 --extra-input return_context_logits=true
said probe.log "model tensorrt_llm" "protocol               oip" "full logits" "own token, top-20, top-k, chosen ids, full logits"
never_said probe.log "final state, inner" "1 only"
expect 2 wrong.log "$limbeck" probe "${url[triton]}" --name tokens=input_ids
expect 2 wrong.log "$limbeck" probe "${url[triton]}" --name input_ids=input_ids
expect 2 wrong.log "$limbeck" probe "${url[triton]}" --protocol vllm --name input_ids=input_ids --name logits=context_logits
said wrong.log "--name is of protocol oip"

say "what it is worth is told as of limbeckd"
expect 0 oip.eval "$limbeck" eval "${url[nouns]}" test.nouns.txt --max-length 24 --tokenizer "$tokenizer" --json
expect 0 named.eval "$limbeck" eval "${url[flat]}" test.nouns.txt --max-length 24 --tokenizer "$tokenizer" --json \
    --name input_ids=tokens --name attention_mask=mask --name logits=scores
holds -s '(.[0] | .. | .perplexity? // empty) as $a | (.[1] | .. | .perplexity? // empty) as $b | $a > 1 and ($a - $b | fabs) < 0.05 * $a' oip.eval named.eval
expect 2 wrong.log "$limbeck" eval "${url[flat]}" test.nouns.txt --protocol vllm --name input_ids=tokens --name logits=scores
expect 2 wrong.log "$limbeck" eval nouns/student test.nouns.txt --name input_ids=tokens --name logits=scores
said wrong.log "--name is for hosted models"

say "mistakes in the names: one line each"
refuse() { # sed's command, text...
    recipe right.yaml "$batched" "targets: logits" "${url[triton]}"
    sed "$1" right.yaml >refused.yaml
    ! cmp -s right.yaml refused.yaml || fail "the recipe is as it was"
    shift
    refused "$@"
}
refuse 's/input_ids: input_ids/input_ids: tokens/' 'names.input_ids is "tokens"' "no such tensor among its inputs: input_ids INT32 [-1,-1]"
refuse 's/logits: context_logits/logits: logits/' 'names.logits is "logits"' "among its outputs: output_ids INT32 [-1,-1,-1], context_logits FP32 [-1,-1,-1]"
refuse 's/lengths: input_lengths/lengths: streaming/' "names.lengths" "BOOL"
refuse 's/lengths: input_lengths/lengths: input_ids/' "named twice"
refuse 's/request_output_len: 1/request_output_len: many/' "extra_inputs.request_output_len" '"many" is no INT32'
refuse 's/return_context_logits: true/stop_words_list: 1/' "extra_inputs.stop_words_list" "stop_words_list INT32 [-1,2,-1]" "one number"
refuse 's/return_context_logits: true/lora_name: x/' "extra_inputs.lora_name" "BYTES"
refuse 's/, return_context_logits: true//' "context_logits has shape [1,1,1,1]" "an extra input that asks for them"
refuse 's/request_output_len: 1, //' "expected input 'request_output_len'"
refuse 's/model: tensorrt_llm/model: other/' "other"
refuse 's/lengths: /length: /' "refused.yaml:" "teachers.0.names.length" "did you mean lengths"
refuse 's/, logits: context_logits//' "teachers.0.names" "needs input_ids and logits"
refuse 's/protocol: oip/protocol: vllm/' "teachers.0.names" "protocol: oip"
refuse 's/names: {[^}]*}, //' "teachers.0.extra_inputs" "goes with names"
refuse 's/targets: logits/targets: final_hidden/' "targets: final_hidden" "set targets: topk or logits"

say "with the server gone, its answers come from the cache: by the names they were asked under, by no others"
stand_in gone
gone=$job
recipe cached.yaml "$batched" "targets: topk" "${url[gone]}"
echo "cache_dir: cache" >>cached.yaml
expect 0 filled.log "$limbeck" train cached.yaml --output-dir filled
kill "$gone"
ends_with 143 "$gone" gone.log
expect 0 offline.log "$limbeck" train cached.yaml --output-dir offline
said offline.log "answers come from the cache"
same_student filled offline
for change in 's/return_context_logits: true/&, temperature: 1/' 's/lengths: input_lengths, //' 's/logits: context_logits/logits: other/'; do
    sed "$change" cached.yaml >renamed.yaml
    expect 1 renamed.log "$limbeck" train renamed.yaml --output-dir renamed --set on_lost_teacher=stop --set teacher_timeout=1 --set give_up_after=1
    never_said renamed.log "answers come from the cache"
    said renamed.log "${url[gone]}"
done

recipe topk.yaml "$batched" "targets: topk" "${url[triton]}"
another_model_ends topk.yaml "serve the same model again"
