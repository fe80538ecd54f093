#!/bin/bash
# Images, by the recipes of examples/fashion with less of everything: a classifier is hosted, and a student learns a class
# from it that it never sees an image of.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

images=/usr/share/datasets/fashion-mnist
if [ ! -f $images/t10k-images-idx3-ubyte.gz ]; then
    echo "dataset-fashion-mnist is not installed"
    exit 77
fi
recipes=$LB_SOURCE_ROOT/examples/fashion
data=$images/t10k-images-idx3-ubyte.gz # 8,000 of these to learn from, the others to be asked about
labels=$images/t10k-labels-idx1-ubyte.gz

learn() { # recipe's name, options...
    local name=$1
    shift
    expect 0 "$name.log" "$limbeck" train "$recipes/$name.yaml" --output-dir "$name" \
        --set "datasets.0.path=$data" --set "datasets.0.labels=$labels" --set datasets.0.max_samples=8000 \
        --set per_device_train_batch_size=64 "$@"
}

score() { # file, run, options...
    local file=$1
    shift
    expect 0 "$file" "$limbeck" eval "$@" "$data" --skip-samples 8000 --json
}

say "a teacher of all ten classes, hosted"
learn teacher --set 'student.hidden_sizes=[128]' --set max_steps=400 --set "eval_datasets.0.path=$data" \
    --set "eval_datasets.0.labels=$labels" --set eval_datasets.0.skip_samples=8000 --set eval_steps=0
said teacher.log "images/s" "step 400: held-out loss"
score teacher.json teacher
holds '.all.samples == 2000 and .all.error_percent < 30 and .parameters == 784 * 128 + 128 + 128 * 10 + 10' teacher.json
# eval_steps 0: measured at the end only, and eval measures the same.
holds -n --slurpfile a teacher.json --slurpfile m teacher/metrics.jsonl '
    [$m[] | .eval_error // empty] == [$a[0].all.error_percent]'
echo one-for-images >token
chmod 600 token
host teacher teacher/student --token-file token

say "students that never see class 9"
learn no9-hard --set max_steps=600
learn no9-soft --set max_steps=600 --set "teachers.0.url=${url[teacher]}" --set "teachers.0.token_file=$PWD/token" \
    --set "cache_dir=$PWD/cache"
said no9-soft.log teachers=1
# Asked once about each of its images, of 38,400 that it learnt from; none is a boot.
[ "$(done_number no9-soft.log tokens_answered)" -lt 8000 ] || fail "images were asked about twice"
score hard.json no9-hard
score soft.json no9-soft
right='def right: 100 - .classes[9].error_percent;'
holds "$right"'right == 0' hard.json
holds "$right"'right > 50' soft.json
holds -n --slurpfile hard hard.json --slurpfile soft soft.json '$soft[0].all.error_percent < $hard[0].all.error_percent'

say "two teachers' top classes, weighed by their logits at the label"
learn no9-soft --output-dir no9-topk --set max_steps=3 --set logging_steps=1 --set targets=topk --set loss_top_k=3 --set mixture=ca_mkd \
    --set "teachers=[{name: a, url: '${url[teacher]}', token_file: '$PWD/token'}, {name: b, url: 'local:$PWD/no9-hard/student'}]"
holds -s '[.[] | select(.loss)] | length == 3 and any(.[]; .["weight/a"] - 0.5 | fabs > 0.001)' no9-topk/metrics.jsonl

say "the bias of class 9"
score raised.json no9-soft --bias 9=1.5
holds -n --slurpfile raised raised.json --slurpfile soft soft.json "$right"'
    ($raised[0] | right) > ($soft[0] | right) and $raised[0].bias == {"9": 1.5} and ($soft[0] | has("bias") | not)'
score all.json no9-hard --bias 9=1000 --bias 3=0.5
holds "$right"'right == 100 and ([.classes[:9][].error_percent] | all(. == 100))' all.json
expect 1 beyond.log "$limbeck" eval no9-soft "$data" --bias 10=1
one_error beyond.log
said beyond.log "class 10" "classes 0 to 9"
expect 2 wrong.log "$limbeck" eval no9-soft "$data" --bias 9
said wrong.log "9=1.5"

say "what doesn't fit"
expect 1 wide.log "$limbeck" train "$recipes/no9-soft.yaml" --output-dir wide --set datasets.0.max_samples=8000 \
    --set student.num_labels=12 --set "teachers.0.url=${url[teacher]}" --set "teachers.0.token_file=$PWD/token"
one_error wide.log
said wide.log "teacher has a vocabulary of 10"

say "what images have in common from one to the next: a loss between the samples of a batch"
for threads in 2 3; do
    learn no9-soft --output-dir between$threads --set max_steps=40 --set logging_steps=1 --set threads=$threads --set "cache_dir=$PWD/cache" \
        --set 'loss_functions=[{function: dist, gamma: 1}]' --set "teachers.0.url=${url[teacher]}" --set "teachers.0.token_file=$PWD/token"
done
cmp between2/student/model.safetensors between3/student/model.safetensors || fail "two and three threads have unlike students"
holds -s '[.[] | .loss // empty] | (.[-5:] | add) < 0.5 * (.[:5] | add)' between2/metrics.jsonl

say "dropout is a new student's, of whatever family: one that exists learns without, and is told so"
learn no9-hard --output-dir dropping --set max_steps=5 --set student.hidden_dropout=0.3
holds '.hidden_dropout == 0.3' dropping/student/config.json
for off in silent true false; do
    options=(--set "student={model: $PWD/dropping/student}" --output-dir "exists-$off" --set max_steps=5)
    [ $off = silent ] || options+=(--set "disable_dropout=$off")
    learn no9-hard "${options[@]}"
    cp no9-hard.log "exists-$off.log"
done
said exists-silent.log dropout_off "disable_dropout: false"
holds '.hidden_dropout == 0' exists-silent/student/config.json
cmp exists-silent/student/model.safetensors exists-true/student/model.safetensors || fail "what is silent is not disable_dropout: true"
! cmp -s exists-silent/student/model.safetensors exists-false/student/model.safetensors || fail "nothing was dropped"
! grep -q dropout_off exists-false.log || fail "dropout is there, and is told to be off"
