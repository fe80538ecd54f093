#!/bin/bash
# Many models in one daemon, and large ones: whatever tells about models tells about all; what was hashed stays so.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

text nouns 200 1 >data.txt
base_recipe >recipe.yaml
cat >>recipe.yaml <<END
datasets: [{path: data.txt}]
loss_functions: [{function: cross_entropy}]
output_dir: run
END
expect 0 train.log "$limbeck" train recipe.yaml --set max_steps=1
models=()
for n in $(seq 299); do
    models+=("m$n=run/student")
done
host m300 run/student "${models[@]}"
ready() {
    curl -sf "${url[m300]}/v2/health/ready" >/dev/null
}
await ready
curl -sf "${url[m300]}/v2/models/stats" | holds '.model_stats | map(.name) | unique | length == 300'
curl -sf "${url[m300]}/metrics" >metrics.txt
[ "$(grep -c '^limbeckd_model_bytes{' metrics.txt)" -eq 300 ] || fail "metrics leave models out"
bytes=$(curl -sf "${url[m300]}/v2/models/m7" | jq .parameters.weight_bytes)
grep -qFx "limbeckd_model_bytes{model=\"m7\"} $bytes" metrics.txt || fail "a model has other bytes in metrics"
curl -sf -X POST "${url[m300]}/v2/repository/index" | holds 'map(select(.state == "READY")) | length == 300'
drop m300

say "a large model is hashed once, unless that is not to be trusted"
hollow_model big run/student 1
settled() { # a file of this moment could change again within it
    [ "$(($(date +%s) - $(stat -c %Z big/model.safetensors)))" -gt 3 ]
}
await settled
export XDG_CACHE_HOME=$PWD/kept
fingerprint_of() { # option...
    host big big "$@"
    await curl -sf "${url[big]}/v2/models/big/ready" -o ready.json
    curl -sf "${url[big]}/v2/models/big" | jq -r .parameters.fingerprint
}
fingerprint_of >first
drop big
kept=$(find kept -name 'fingerprint-*')
[ "$(cat "$kept")" = "$(cat first)" ] || fail "kept: $(cat "$kept")"
printf '%064d' 7 >"$kept"
fingerprint_of >second
drop big
[ "$(cat second)" = "$(printf '%064d' 7)" ] || fail "it was hashed again: $(cat second)"
fingerprint_of --rehash >third
cmp first third
