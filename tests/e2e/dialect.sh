# shellcheck shell=bash
# What the scripts of teachers that speak another server's dialect share: a student of one teacher, and how its runs by
# several protocols are held against each other. Sourced in lib.sh's place.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

steps=30 # of a run

host_teacher() {
    say "a teacher"
    make_teachers 60
    text nouns 200 31 >train.nouns.txt
    host nouns nouns/student
}

recipe() { # file, the teacher's keys, the targets' keys, the teacher's address where it is not limbeckd's
    cat >"$1" <<END
output_dir: run
datasets:
  - {path: train.nouns.txt}
tokenizer: $tokenizer
max_length: 24
student: {model_type: llama, hidden_size: 24, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 2,
  num_key_value_heads: 1, max_position_embeddings: 64}
teachers:
  - {name: nouns, url: "${4:-${url[nouns]}}", $2}
$3
fp16_targets: false
loss_functions:
  - {function: kl}
per_device_train_batch_size: 8
learning_rate: 4.0e-3
max_steps: $steps
logging_steps: 1
seed: 5
END
}

# The recipe's texts are conversations, of which answers alone are learnt.
with_chat() { # recipe, the same with it
    local i
    for i in 1 2 3 4 5 6 7 8; do
        printf '{"messages":[{"role":"user","content":"%s"},{"role":"assistant","content":"yes"}]}\n' "$(text nouns 1 "$i" | cut -c 1-30)"
    done >chat.jsonl
    echo '{% for m in messages %}{{ m.role }}: {{ m.content }}; {% endfor %}' >chat.jinja
    sed -e 's/train.nouns.txt}/chat.jsonl}/' -e 's/^max_length: 24/max_length: 40/' "$1" >"$2"
    echo 'chat_template: chat.jinja' >>"$2"
}

losses() { # run folder
    jq -s -c '[.[] | .loss // empty]' "$1/metrics.jsonl"
}

# Both runs are whole and have learnt, and nowhere are their losses further apart.
near() { # run, run, at most
    local far
    far=$(jq -n --argjson a "$(losses "$1")" --argjson b "$(losses "$2")" '[$a, $b] | transpose | map(.[0] - .[1] | fabs) | max')
    echo "losses of $1 and $2: at most $far apart"
    jq -n -e --argjson a "$(losses "$1")" --argjson far "$far" --argjson most "$3" --argjson steps "$steps" \
        '($a | length) == $steps and $a[-1] < 0.8 * $a[0] and $far <= $most' >/dev/null ||
        fail "$1 and $2 are $far apart: $(losses "$1") $(losses "$2")"
}

# The recipe refused.yaml is refused in one line at the start.
refused() { # text...
    expect 1 refused.log "$limbeck" train refused.yaml --output-dir refused
    one_error refused.log
    said refused.log "$@"
    [ ! -e refused/metrics.jsonl ] || fail "a run began"
}

# The run ends when another model answers under the teacher's name, and its checkpoint is kept. Leaves that model there.
another_model_ends() { # recipe, what the error says where it is not the fixed question's answer
    say "another model under the same name: the run ends, and its checkpoint is kept"
    sed 's/^max_steps: .*/max_steps: 100000\nsave_steps: 1/' "$1" >long.yaml
    start long.log "$limbeck" train long.yaml --output-dir long
    local run=$job
    shift
    await reached long 3
    drop nouns
    host nouns others/student
    ends_with 1 "$run" long.log
    one_error long.log
    [ $# -gt 0 ] || set -- "another model answers now" "the fixed question"
    said long.log "$@"
    compgen -G "long/checkpoint-*" >/dev/null || fail "no checkpoint: $(ls long)"
}
