#!/bin/bash
# A teacher that speaks vLLM's dialect teaches what the same teacher does natively: lists, and final states with a head
# from a file. limbeckd stands in for the vLLM that somebody runs.
. "${LB_SOURCE_ROOT:?}/tests/e2e/dialect.sh"
host_teacher
host other others/student

say "top-20: by oip and by vllm"
recipe oip.yaml "protocol: oip" "targets: topk
loss_top_k: 20"
recipe vllm.yaml "protocol: vllm" "targets: topk
loss_top_k: 20"
expect 0 oip.log "$limbeck" train oip.yaml --output-dir oip
expect 0 vllm.log "$limbeck" train vllm.yaml --output-dir vllm
near oip vllm 1e-5

say "replicas that call it by unlike paths, of which one lists less"
for replica in a b; do
    start $replica.log python3 "$LB_SOURCE_ROOT/tests/e2e/proxy.py" "${url[nouns]}" $replica.port called nouns /$replica/nouns ${less:+$less}
    await test -s $replica.port
    less=40
done
b=http://127.0.0.1:$(cat b.port)
recipe replicas.yaml "protocol: vllm, replicas: [\"$b\"]" "targets: topk
loss_top_k: 20" "http://127.0.0.1:$(cat a.port)"
expect 0 replicas.log "$limbeck" train replicas.yaml --output-dir replicas
never_said replicas.log replica_aside
for replica in a b; do
    [ "$(grep -c 'POST /v1/completions' $replica.log)" -gt 4 ] || fail "replica $replica was not asked"
done
near oip replicas 1e-5
sed 's/loss_top_k: 20/loss_top_k: 41/' replicas.yaml >refused.yaml
refused "lists at most 40 ids"

say "top-5: by oip and by OpenAI's completions"
sed 's/loss_top_k: 20/loss_top_k: 5/' oip.yaml >oip5.yaml
sed 's/loss_top_k: 20/loss_top_k: 5/; s/protocol: vllm/protocol: openai/' vllm.yaml >openai.yaml
expect 0 oip5.log "$limbeck" train oip5.yaml --output-dir oip5
expect 0 openai.log "$limbeck" train openai.yaml --output-dir openai
near oip5 openai 1e-5

say "final states: by oip and by vllm, the head from the model's folder"
recipe oip2.yaml "protocol: oip" "targets: final_hidden"
recipe vllm2.yaml "protocol: vllm, head: nouns/student" "targets: final_hidden"
expect 0 oip2.log "$limbeck" train oip2.yaml --output-dir oip2
expect 0 vllm2.log "$limbeck" train vllm2.yaml --output-dir vllm2
near oip2 vllm2 0
same_student oip2 vllm2
said nouns.log endpoint=completions endpoint=pooling

say "probe"
expect 0 probe.json "$limbeck" probe --json "${url[nouns]}"
holds '.teachers[0] | .protocol == "oip" and .answers and (.ladder | length) == 7 and .any_temperature and .tokens_per_second > 0' probe.json
expect 0 probe.json "$limbeck" probe --json --protocol vllm "${url[nouns]}" "${url[nouns]}" "${url[other]}"
holds '.teachers[0] | .protocol == "vllm" and .answers and .ladder == ["own token", "top-20", "top-k", "chosen ids", "final state"]
    and .most_top_k == 16384 and (.any_temperature | not) and .hidden_size == 48 and (.fingerprint | length) == 64' probe.json
holds '(.agreement | length) == 1 and .agreement[0].identical and .agreement[0].agree' probe.json
expect 0 probe.txt "$limbeck" probe --protocol vllm "${url[nouns]}"
said probe.txt "protocol               vllm" "gives                  own token, top-20, top-k, chosen ids, final state" "most top_k             16384" "tokens/s"
expect 0 probe.json "$limbeck" probe --json --protocol openai "${url[nouns]}"
holds '.teachers[0] | .answers and .ladder == ["own token", "top-20"] and .most_top_k == 5' probe.json
served[same]=nouns # another model under that name
host same others/student
expect 1 probe2.json "$limbeck" probe --json --protocol vllm "${url[nouns]}" "${url[same]}"
said probe2.json "say the same of themselves" "do not use them as replicas"
expect 2 none.txt "$limbeck" probe --protocol nothing "${url[nouns]}"
said none.txt "no protocol nothing; there are oip, vllm"

say "scored as by oip"
text nouns 40 77 >test.txt
expect 0 oip.json "$limbeck" eval --json --tokenizer "$tokenizer" "${url[nouns]}" test.txt --max-length 24
for protocol in vllm openai; do
    expect 0 $protocol.json "$limbeck" eval --json --protocol $protocol --tokenizer "$tokenizer" "${url[nouns]}" test.txt --max-length 24
    holds -n --slurpfile a oip.json --slurpfile b $protocol.json '($a[0].models[0].all.perplexity / $b[0].models[0].all.perplexity - 1 | fabs) < 1e-6'
done
expect 1 none.log "$limbeck" eval --json --protocol vllm "${url[nouns]}" test.txt
said none.log "--tokenizer is needed"

say "what cannot be asked is refused at the start, with what to do"
sed 's/^fp16/temperature: 2\nfp16/' vllm.yaml >refused.yaml
refused "temperature 1 only" "set temperature: 1"
sed 's/loss_top_k: 5/loss_top_k: 6/' openai.yaml >refused.yaml
refused "lists at most 5 ids" "loss_top_k: 5" max_logprobs
sed -i 's/protocol: openai/&, max_logprobs: 64/' refused.yaml
expect 0 more.log "$limbeck" train refused.yaml --output-dir more --set max_steps=2
sed 's/loss_top_k: 20/loss_top_k: 64/' vllm.yaml >more.yaml # the server says itself how many it lists
expect 0 more.log "$limbeck" train more.yaml --output-dir more64 --set max_steps=2
sed 's/targets: topk/targets: logits/' vllm.yaml >refused.yaml
refused "does not give logits" "own token -> top-20 -> top-k -> chosen ids -> full logits -> final state -> inner layers" "needs full logits"
sed 's/, head: [^}]*//' vllm2.yaml >refused.yaml
refused "needs its output head" "name the model's folder or .gguf file with head"
sed 's/head: nouns/head: others/' vllm2.yaml >refused.yaml
refused "others/student" "nats from those that it gives itself" "another model's"
sed 's/protocol: vllm, head/protocol: oip, head/' vllm2.yaml >refused.yaml
expect 1 refused.log "$limbeck" train refused.yaml --output-dir refused
said refused.log teachers.0.head "leave it out"

another_model_ends vllm.yaml

say "the cache knows whose answers it has"
sed 's/^fp16/cache_dir: cache\nfp16/' vllm.yaml >cached.yaml
expect 0 cached.log "$limbeck" train cached.yaml --output-dir cached
drop nouns
host nouns nouns/student
expect 0 again.log "$limbeck" train cached.yaml --output-dir again
said again.log another_model
near again vllm 0
expect 0 third.log "$limbeck" train cached.yaml --output-dir third
never_said third.log another_model
[ "$(done_number third.log teacher_requests)" -eq 0 ] || fail "the cache was not used"
same_student again third
drop nouns
expect 0 offline.log "$limbeck" train cached.yaml --output-dir offline
same_student again offline
