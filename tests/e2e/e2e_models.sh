#!/bin/bash
# Many models in one daemon: whatever tells about models tells about all of them.
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
[ "$(curl -sf "${url[m300]}/metrics" | grep -c '^limbeckd_model_bytes{')" -eq 300 ] || fail "metrics leave models out"
curl -sf -X POST "${url[m300]}/v2/repository/index" | holds 'map(select(.state == "READY")) | length == 300'
