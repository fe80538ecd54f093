#!/bin/bash
# How a student learns, and when it is done: optimizers, evaluations that are compared; each killed and gone on with.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"
command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }

text nouns 400 1 >train.txt
text others 60 2 >test.txt
base_recipe >alone.yaml
cat >>alone.yaml <<END
datasets: [{path: train.txt}]
eval_datasets: [{path: test.txt}]
loss_functions: [{function: cross_entropy}]
save_steps: 7
seed: 3
output_dir: run
END

kills="9 23"

# A run with these settings, and the same killed twice on its way: one student.
undisturbed_and_killed() { # name, settings...
    local name=$1 set=() setting step last
    shift
    for setting; do
        set+=(--set "$setting")
    done
    expect 0 "$name.log" "$limbeck" train alone.yaml -o "$name" "${set[@]}"
    start "$name.1.log" "$limbeck" train alone.yaml -o "$name.killed" "${set[@]}"
    for step in $kills; do
        await reached "$name.killed" "$step"
        murder "$job"
        last=$name.$step.log
        start "$last" "$limbeck" train alone.yaml -o "$name.killed" "${set[@]}" --resume
    done
    ends_with 0 "$job" "$last"
    same_student "$name" "$name.killed"
}

say "optimizers"
undisturbed_and_killed sgd optim=sgd learning_rate=0.5
undisturbed_and_killed nesterov optim=sgd optim_args="momentum=0.9,nesterov=true" learning_rate=0.1
undisturbed_and_killed lion optim=lion_32bit learning_rate=1e-3
undisturbed_and_killed wsd lr_scheduler_type=warmup_stable_decay "lr_scheduler_kwargs={num_decay_steps: 10}" \
    warmup_from_zero=true
undisturbed_and_killed muon optim=muon threads=1
expect 0 muon2.log "$limbeck" train alone.yaml -o muon2 --set optim=muon --set threads=2
same_student muon muon2
for name in nesterov lion muon; do
    ! cmp -s sgd/student/model.safetensors $name/student/model.safetensors || fail "$name is sgd"
done

say "dropout"
undisturbed_and_killed dropout student.attention_dropout=0.2 threads=1
expect 0 threads.log "$limbeck" train alone.yaml -o threads --set student.attention_dropout=0.2 --set threads=2
same_student dropout threads
expect 0 off.log "$limbeck" train alone.yaml -o off --set student.attention_dropout=0.2 --set disable_dropout=true
expect 0 none.log "$limbeck" train alone.yaml -o none
cmp off/student/model.safetensors none/student/model.safetensors || fail "dropout was not off"
! cmp -s dropout/student/model.safetensors none/student/model.safetensors || fail "nothing was dropped"
holds '.attention_dropout == 0.2' dropout/student/config.json
holds '.attention_dropout == 0' off/student/config.json
# Of a student that exists its config's counts where the recipe says so.
for name in given with; do
    [ $name = given ] && set_dropout=() || set_dropout=(--set disable_dropout=false)
    expect 0 $name.log "$limbeck" train alone.yaml -o $name --set max_steps=3 --set 'student={model: dropout/student}' "${set_dropout[@]}"
done
! cmp -s given/student/model.safetensors with/student/model.safetensors || fail "nothing was dropped"
holds '.attention_dropout == 0' given/student/config.json

say "adapters"
undisturbed_and_killed lora 'student={model: none/student}' use_peft=true lora_r=4 lora_target_modules=[q_proj,down_proj] \
    ema_decay=0.5 eval_steps=10
python3 - none lora <<'END'
import json, struct, sys

def tensors(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {k: (v["shape"], struct.unpack("<%df" % ((v["data_offsets"][1] - v["data_offsets"][0]) // 4),
                                          data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]))
            for k, v in header.items() if k != "__metadata__"}

base, merged = (tensors(run + "/student/model.safetensors") for run in sys.argv[1:3])
adapter = tensors(sys.argv[2] + "/adapter/adapter_model.safetensors")
config = json.load(open(sys.argv[2] + "/adapter/adapter_config.json"))
assert config["r"] == 4 and config["lora_alpha"] == 32 and config["target_modules"] == ["q_proj", "down_proj"], config
assert len(adapter) == 8, list(adapter)
for name in base:
    key = "base_model.model." + name.replace(".weight", ".lora_%s.weight")
    if key % "A" not in adapter:
        assert merged[name] == base[name], name + " is another"
        continue
    (rows, cols), a, b = base[name][0], adapter[key % "A"][1], adapter[key % "B"][1]
    for i in range(0, rows, 5):
        for j in range(0, cols, 3):
            want = base[name][1][i * cols + j] + 8 * sum(b[i * 4 + k] * a[k * cols + j] for k in range(4))
            assert abs(merged[name][1][i * cols + j] - want) < 1e-5, (name, i, j)
    assert merged[name] != base[name], name + " has not changed"
END
mkdir -p theirs/adapter
echo mine >theirs/adapter/adapter_config.json
expect 1 theirs.log "$limbeck" train alone.yaml -o theirs --set 'student={model: none/student}' --set use_peft=true
one_error theirs.log
said theirs.log "holds adapter_config.json, which Limbeck did not write"

say "frozen weights"
undisturbed_and_killed frozen "frozen_parameters=['model.embed_tokens.*', 'model.layers.0.*']"
expect 0 start.log "$limbeck" train alone.yaml -o start --set max_steps=1 --set learning_rate=0
python3 - frozen start <<'END'
import json, struct, sys
def tensors(run):
    data = open(run + "/student/model.safetensors", "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {k: data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]] for k, v in header.items() if k != "__metadata__"}
learnt, start = tensors(sys.argv[1]), tensors(sys.argv[2])
for name in start:
    frozen = name.startswith(("model.embed_tokens.", "model.layers.0."))
    assert (learnt[name] == start[name]) == frozen, name
END
said frozen.log "frozen parameters="
expect 1 wrong.log "$limbeck" train alone.yaml -o wrong --set "frozen_parameters=['model.layer.*']"
said wrong.log 'frozen_parameters.0: the student has no parameter "model.layer.*"; they are called model.embed_tokens.weight'
expect 1 all.log "$limbeck" train alone.yaml -o all --set "frozen_parameters=['*']"
said all.log "frozen_parameters: nothing is left that could learn"

say "a student of the blocks that change most"
expect 0 teacher.log "$limbeck" train alone.yaml -o teacher --set student.num_hidden_layers=4
"$limbeck" influence teacher test.txt --keep 2 --json >influence.json || fail "no influence"
holds '(.block_influence | length) == 4 and (.block_influence | all(. > 0 and . < 2)) and (.layers | length) == 2' influence.json
holds '. as $all | [range(4)] | sort_by(-$all.block_influence[.]) | .[:2] | sort == $all.layers' influence.json
"$limbeck" influence teacher test.txt --keep 2 >influence.txt
said influence.txt "layers_from: {model: ..., layers: [$(jq -r '.layers | map(tostring) | join(", ")' influence.json)]}"
expect 0 pruned.log "$limbeck" train alone.yaml -o pruned --set max_steps=5 \
    --set "student={layers_from: {model: teacher/student, layers: $(jq -c .layers influence.json)}}"
holds '.num_hidden_layers == 2' pruned/student/config.json
expect 1 five.log "$limbeck" influence teacher test.txt --keep 5
said five.log "the model has 4 blocks"
host teacher teacher/student --threads 2
expect 0 hosted.json "$limbeck" influence "${url[teacher]}#teacher" test.txt --keep 2 --json --max-length 24
"$limbeck" influence teacher test.txt --keep 2 --json --max-length 24 >folder.json || fail "no influence"
cmp <(jq -c 'del(.model)' hosted.json) <(jq -c 'del(.model)' folder.json) || fail "hosted, its blocks have another influence"
expect 1 five.log "$limbeck" influence "${url[teacher]}" test.txt --keep 5
one_error five.log
said five.log "the model has 4 blocks"
for told in wide narrow untold; do # of its width the outputs' shapes tell
    retold "$told" teacher "p = said['parameters']; w = p.pop('hidden_size'); p.update({'wide': {'hidden_size': 100 * w},
        'narrow': {'hidden_size': w // 2}, 'untold': {}}['$told'])"
    expect 0 hosted.json "$limbeck" influence "${url[$told]}" test.txt --keep 2 --json --max-length 24
    cmp <(jq -c 'del(.model)' hosted.json) <(jq -c 'del(.model)' folder.json) || fail "its blocks have another influence"
done
influence_refused() { # name, Python, what the line says
    retold "$1" teacher "$2"
    expect 1 refused.log "$limbeck" influence "${url[$1]}" test.txt
    one_error refused.log
    said refused.log "$3"
}
influence_refused older "said['outputs'] = [o for o in said['outputs'] if not o['name'].startswith('residuals.')]" \
    "does not give residuals.0, what a block leaves: a newer limbeckd does"
influence_refused deeper "said['parameters']['num_layers'] = 7" "does not give residuals.4"
influence_refused layerless "del said['parameters']['num_layers']" "does not tell how many blocks the model has"
influence_refused unlike "[o['shape'].append(o['shape'].pop() * 2) for o in said['outputs'] if o['name'] == 'residuals.2']" \
    "residuals.2 has rows of"
expect 1 away.log "$limbeck" train alone.yaml -o away --set "student={layers_from: {model: '${url[teacher]}', layers: [0]}}"
one_error away.log
said away.log "student.layers_from.model: weights do not come over the network; give a folder or a .gguf file"

say "a narrower student, of the neurons and heads that do most"
for out in narrow narrower; do
    expect 0 $out.json "$limbeck" prune teacher test.txt --intermediate-size 40 --num-key-value-heads 1 --out $out --json --max-length 24
done
cmp narrow/model.safetensors narrower/model.safetensors || fail "made again, it is another"
holds '.intermediate_size == 40 and .num_key_value_heads == 1 and .num_attention_heads == 2 and .head_dim == 8' narrow/config.json
holds '.parameters < .parameters_before and (.intermediate_size.kept | length == 4 and all(length == 40 and . == sort))
    and .intermediate_size.share > 40 / 64 and .num_key_value_heads.share >= 0.5' narrow.json
undisturbed_and_killed narrowed "student={model: narrow}"
holds '.intermediate_size == 40' narrowed/student/config.json
expect 1 wide.log "$limbeck" prune teacher test.txt --intermediate-size 65 --out wide
one_error wide.log
said wide.log "teacher has intermediate_size 64 and num_key_value_heads 2: no more can stay"
expect 2 usage.log "$limbeck" prune teacher test.txt --out wide
mkdir mine && touch mine/thing
expect 1 mine.log "$limbeck" prune teacher test.txt --intermediate-size 8 --out mine
one_error mine.log

say "an average of the weights"
undisturbed_and_killed ema ema_decay=0.9 eval_steps=10
undisturbed_and_killed ema_student ema_decay=0.9 ema_for=student eval_steps=10
expect 0 plain.log "$limbeck" train alone.yaml -o plain --set eval_steps=10
expect 0 ema_evaluation.log "$limbeck" train alone.yaml -o ema_evaluation --set eval_steps=10 --set ema_decay=0.9 \
    --set ema_for=evaluation
evaluations() { jq -c 'select(.eval_loss) | [.step, .eval_loss]' "$1/metrics.jsonl"; }
same_student ema ema_student
same_student plain ema_evaluation
cmp <(evaluations ema) <(evaluations ema_evaluation) || fail "an average was not evaluated"
cmp <(evaluations plain) <(evaluations ema_student) || fail "the weights were not evaluated"
! cmp -s <(evaluations plain) <(evaluations ema) || fail "the average is the weights"
! cmp -s plain/student/model.safetensors ema/student/model.safetensors || fail "the average was not exported"

say "the best evaluation's student, and no step more than patience has"
# The held-out text is of another kind, so that it is predicted worse and worse.
kills="9 15"
undisturbed_and_killed best eval_steps=2 early_stopping_patience=4 load_best_model_at_end=true save_total_limit=1 max_steps=90
best=$(jq -s 'map(select(.eval_loss)) | min_by(.eval_loss).step' best/metrics.jsonl)
last=$(jq -s '.[-1].step' best/metrics.jsonl)
[ "$last" -eq $((best + 8)) ] || fail "best at $best, ended at $last"
holds -s "map(select(.eval_loss)) | .[-1].best_step == $best" best/metrics.jsonl
holds -s 'map(select(.loss)) | .[-1].step == '"$last" best/metrics.jsonl
[ -d best/checkpoint-"$best" ] && [ -d best/checkpoint-"$last" ] || fail "the best checkpoint is not there"
[ "$(find best -name 'checkpoint-*' | wc -l)" -eq 2 ] || fail "more checkpoints than the best and the last"
said best.log "early_stopping step=$last best_step=$best" "best step=$best"
cmp <("$limbeck" eval best test.txt --json | jq '.all.loss * 1000 | round') \
    <(jq -s 'map(select(.eval_loss)) | min_by(.eval_loss).eval_loss * 1000 | round' best/metrics.jsonl) || fail "the student is not the best one"

say "gone on with, it is done"
expect 0 done.log "$limbeck" train alone.yaml -o best --resume --set eval_steps=2 --set early_stopping_patience=4 \
    --set load_best_model_at_end=true --set save_total_limit=1 --set max_steps=90
[ "$(jq -s '.[-1].step' best/metrics.jsonl)" -eq "$last" ] || fail "it went on"
same_student best best.killed
