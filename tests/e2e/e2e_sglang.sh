#!/bin/bash
# A teacher that speaks SGLang's dialect teaches what the same teacher does natively, by lists longer than 20, of
# whole texts and of the answers of conversations alone. limbeckd stands in for the SGLang that somebody runs.
. "${LB_SOURCE_ROOT:?}/tests/e2e/dialect.sh"
host_teacher

say "top-48: by oip and by sglang"
recipe oip.yaml "protocol: oip" "targets: topk
loss_top_k: 48"
recipe sglang.yaml "protocol: sglang" "targets: topk
loss_top_k: 48"
expect 0 oip.log "$limbeck" train oip.yaml --output-dir oip
expect 0 sglang.log "$limbeck" train sglang.yaml --output-dir sglang
near oip sglang 1e-5
said nouns.log endpoint=sglang_generate

say "conversations: answers alone, by oip and by sglang"
for protocol in oip sglang; do
    with_chat $protocol.yaml chat.yaml
    expect 0 $protocol.chat.log "$limbeck" train chat.yaml --output-dir $protocol.chat
done
near oip.chat sglang.chat 1e-5

say "a probe is told that it is one, and says what it gives"
expect 0 probe.log "$limbeck" probe "${url[nouns]}" --protocol sglang
said probe.log "protocol               sglang" "own token, top-20, top-k, chosen ids" "1 only"

say "what cannot be asked is refused at the start, with what to do"
sed 's/^fp16/temperature: 2\nfp16/' sglang.yaml >refused.yaml
refused "temperature 1 only" "set temperature: 1"
sed 's/targets: topk/targets: logits/' sglang.yaml >refused.yaml
refused "does not give logits" "own token -> top-20 -> top-k -> chosen ids" "needs full logits"
sed 's/targets: topk/targets: final_hidden/' sglang.yaml >refused.yaml
refused "needs its output head" "protocol: sglang"

another_model_ends sglang.yaml

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
