#!/bin/bash
# A teacher behind llama.cpp's server, which tells what follows a text only, teaches what the same teacher does natively by
# lists; of conversations the answers alone are asked about. llamacpp.py stands in for the server that somebody runs.
. "${LB_SOURCE_ROOT:?}/tests/e2e/dialect.sh"
command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }

host_teacher
start stand_in.log python3 "$LB_SOURCE_ROOT/tests/e2e/llamacpp.py" "${url[nouns]}" stand_in.port 2048
await test -s stand_in.port
llama=http://127.0.0.1:$(cat stand_in.port)

say "top-30: by oip and by llamacpp"
recipe oip.yaml "protocol: oip" "targets: topk
loss_top_k: 30"
recipe llama.yaml "protocol: llamacpp" "targets: topk
loss_top_k: 30" "$llama"
expect 0 oip.log "$limbeck" train oip.yaml --output-dir oip
expect 0 llama.log "$limbeck" train llama.yaml --output-dir llama
near oip llama 1e-5

say "a probe knows it, and says what it gives"
expect 0 probe.log "$limbeck" probe "$llama"
said probe.log "model m.gguf" llamacpp "top-20, top-k" "1 only" "2048"
never_said probe.log "own token," "chosen ids,"

say "conversations: positions that do not count are no texts"
for protocol in oip llama; do
    with_chat $protocol.yaml chat.yaml
    expect 0 $protocol.chat.log "$limbeck" train chat.yaml --output-dir $protocol.chat
done
near oip.chat llama.chat 1e-5

say "what it does not tell is refused at the start, with what to do"
sed 's/^fp16/temperature: 2\nfp16/' llama.yaml >refused.yaml
refused "temperature 1 only" "set temperature: 1"
sed 's/targets: topk/targets: logits/' llama.yaml >refused.yaml
refused "does not give logits" "needs full logits"
sed "s#$llama#${url[nouns]}#" llama.yaml >refused.yaml
refused "n_vocab" "is it llama.cpp"

another_model_ends llama.yaml
