# shellcheck shell=bash
# What the end-to-end scripts share: daemons on ports that the system picks, tiny teachers and recipes, and checks that
# say what they saw. Sourced; the script then runs in a temporary folder of its own, which goes when it ends, as do all
# processes that it started.
set -euo pipefail

limbeck=${LB_BUILD_ROOT:?}/trainer/limbeck
limbeckd=$LB_BUILD_ROOT/server/limbeckd
tokenizer=${LB_SOURCE_ROOT:?}/examples/wordnet/tokenizer.json
patience=${LB_TEST_PATIENCE:-100} # seconds until something awaited counts as missing
export OMP_WAIT_POLICY=passive    # several processes share the cores

for tool in curl jq; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is not installed"
        exit 77
    fi
done

declare -A pid=() port=() url=() # of daemons, by name
declare -A served=()             # the model's name there, where it is another
declare -a jobs=()               # other processes
declare -a mounts=()             # file systems of the test's own

folder=$(mktemp -d "${TMPDIR:-/tmp}/limbeck-e2e-XXXXXX")
cd "$folder"

# ---- checks ----

say() {
    printf -- '--- %s\n' "$*"
}

fail() {
    printf 'FAILED (line %s): %s\n' "${BASH_LINENO[*]}" "$*" >&2
    exit 1
}

show() { # file...
    for file in "$@"; do
        if [ -f "$file" ]; then
            printf '>>> %s\n' "$file"
            tail -n 5 "$file" | cut -c 1-200
        fi
    done >&2
}

# Runs to the end; what it says goes to the file.
expect() { # status, file, command...
    local want=$1 file=$2 got=0
    shift 2
    "$@" >"$file" 2>&1 || got=$?
    if [ "$got" -ne "$want" ]; then
        show "$file"
        fail "status $got instead of $want: $*"
    fi
}

said() { # file, text...: all of them
    local file=$1 text
    shift
    for text in "$@"; do
        if ! grep -qF -- "$text" "$file"; then
            show "$file"
            fail "$file lacks: $text"
        fi
    done
}

never_said() { # file, text...
    local file=$1 text
    shift
    for text in "$@"; do
        if grep -F -- "$text" "$file" >&2; then
            fail "$file has: $text"
        fi
    done
}

# An error is one line for people, and nothing fell over on the way.
one_error() { # file
    local n
    n=$(grep -c '^limbeck: ' "$1" || true)
    if [ "$n" -ne 1 ]; then
        show "$1"
        fail "$n lines of errors instead of one in $1"
    fi
}

# The recipe recipe.yaml with these options is refused in one line.
train_refused() { # what the line says, option...
    local text=$1
    shift
    expect 1 refused.log "$limbeck" train recipe.yaml -o refused "$@"
    one_error refused.log
    said refused.log "$text"
}

same_student() { # run folder, run folder
    local file
    for file in config.json model.safetensors tokenizer.json; do
        cmp "$1/student/$file" "$2/student/$file" || fail "$1 and $2 have unlike students"
    done
}

other_student() { # run folder, run folder
    ! cmp -s "$1/student/model.safetensors" "$2/student/model.safetensors" || fail "$1 and $2 have equal students"
}

# The condition of jq over files (or numbers by --argjson) holds.
holds() { # jq arguments...
    jq -e "$@" >/dev/null || fail "does not hold: jq $*"
}

# A number of the line that ends a run.
done_number() { # file, key
    local value
    value=$(sed -n "s/.* done .*[ ]$2=\([0-9.]*\).*/\1/p" "$1")
    [ -n "$value" ] || fail "no $2 in the last line of $1"
    echo "$value"
}

# ---- waiting ----

# Waits until the command succeeds; gives up when time is over.
await() { # command...
    local until=$((SECONDS + patience))
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || fail "waited in vain for: $*"
        sleep 0.02
    done
}

has() { # file, text
    [ -f "$1" ] && grep -qF -- "$2" "$1"
}

# Whether the run has journalled that step (logging_steps: 1), or is over.
reached() { # run folder, step
    [ -f "$1/metrics.jsonl" ] && [ "$(grep -c '"loss"' "$1/metrics.jsonl")" -ge "$2" ]
}

# ---- processes ----

# Starts a program in the background: $job is its process.
start() { # file, command...
    local file=$1
    shift
    "$@" >"$file" 2>&1 &
    job=$!
    jobs+=("$job")
}

# Waits for the end of a process that start began.
ends_with() { # status, process, file
    local got=0
    wait "$2" || got=$?
    if [ "$got" -ne "$1" ]; then
        show "$3"
        fail "status $got instead of $1, see $3"
    fi
}

# Ends a process that start began, as a power cut does.
murder() { # process
    { kill -9 "$1" && wait "$1"; } 2>/dev/null || true
}

# Starts limbeckd with one model named NAME (or served[NAME]) and waits until it is ready.
host() { # name, model, option...
    local name=$1 model=$2 listen=127.0.0.1:${port[$1]:-0}
    shift 2
    rm -f "$name.port"
    "$limbeckd" "${served[$name]:-$name}=$model" --listen "$listen" --port-file "$name.port" --threads 1 "$@" >>"$name.log" 2>&1 &
    pid[$name]=$!
    await is_up "$name"
    port[$name]=$(cat "$name.port")
    url[$name]=http://127.0.0.1:${port[$name]}
}

is_up() { # name
    [ -s "$1.port" ] && return 0
    if ! kill -0 "${pid[$1]}" 2>/dev/null; then
        show "$1.log"
        fail "limbeckd $1 ended"
    fi
    return 1
}

# As if the machine lost power; a later host NAME takes the same port.
drop() { # name
    murder "${pid[$1]}"
    unset "pid[$1]"
}

finish() {
    local status=$?
    set +e
    trap '' PIPE # tidying up goes on when nobody reads any more
    for process in "${pid[@]}" "${jobs[@]}"; do
        murder "$process"
    done
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        show ./*.log
    fi
    cd / || exit 1
    for mounted in "${mounts[@]}"; do
        umount -l "$mounted"
    done
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT

# ---- teachers and recipes ----

# Sentences with some order in them, of two kinds that are told apart easily: nouns and others.
text() { # kind, lines, seed
    awk -v kind="$1" -v lines="$2" -v seed="$3" '
        function pick(n) { x = (x * 16807) % 2147483647; return int(x / 7) % n }
        BEGIN {
            x = seed * 7919 + 17
            na = split("small large red old quiet bright wooden round", a)
            nn = split("bird boat house river tree animal tool plant", n)
            nv = split("sing carry hold move grow cut shine float", v)
            nd = split("slowly quickly loudly often rarely well together away", d)
            for (i = 0; i < lines; i++) {
                s = pick(nn)
                if (kind == "nouns")
                    printf "a %s %s that can %s %s\n", a[(s + pick(2)) % na + 1], n[s + 1], v[s + 1], d[(s + pick(3)) % nd + 1]
                else
                    printf "to %s %s with the %s of a %s\n", v[s + 1], d[(s * 3 + pick(2)) % nd + 1], n[(s + 5) % nn + 1], n[pick(nn) + 1]
            }
        }'
}

# The tokenizer with a template for conversations beside it: <role>content<eos>.
chat_tokenizer() { # folder
    mkdir "$1"
    cp "$tokenizer" "$1/tokenizer.json"
    cat >"$1/chat_template.jinja" <<'END'
{%- for m in messages -%}
<{{ m.role }}>{{ m.content }}{{ eos_token }}
{%- endfor -%}
{%- if add_generation_prompt %}<assistant>{% endif -%}
END
}

# A recipe without losses: the student, its data and how it learns.
# url[NAME]: what the daemon of that name serves, by a server that says something else of its models.
retold() { # name, of which daemon, Python about `said`, a model's metadata
    start "$1.log" python3 "$LB_SOURCE_ROOT/tests/e2e/retold.py" "${url[$2]}" "$1.port" "$3"
    await test -s "$1.port"
    url[$1]=http://127.0.0.1:$(cat "$1.port")
}

base_recipe() {
    cat <<END
student:
  model_type: llama
  hidden_size: 32
  intermediate_size: 64
  num_hidden_layers: 2
  num_attention_heads: 4
  num_key_value_heads: 2
  max_position_embeddings: 64
  rope_theta: 10000
  norm_eps: 1.0e-5
  tie_word_embeddings: true
tokenizer: $tokenizer
max_length: 24
per_device_train_batch_size: 8
learning_rate: 1.0e-2
lr_scheduler_type: linear
warmup_ratio: 0.1
weight_decay: 0.1
max_steps: 40
logging_steps: 1
END
}

# Trains both teachers, in nouns/student and others/student. They share a tokenizer, not a width.
make_teachers() { # steps
    local kind seed=1
    for kind in nouns others; do
        text "$kind" 1500 "$seed" >"$kind.txt"
        text "$kind" 60 $((seed + 10)) >"test.$kind.txt"
        base_recipe >"$kind.yaml"
        cat >>"$kind.yaml" <<END
datasets: [{path: $kind.txt}]
loss_functions: [{function: cross_entropy}]
seed: $seed
output_dir: $kind
END
        expect 0 "$kind.train.log" "$limbeck" train "$kind.yaml" --set max_steps="$1" --set student.hidden_size=48 \
            --set student.num_hidden_layers="$seed"
        seed=$((seed + 1))
    done
}

# A student of both teachers, which run under the names nouns and others (or url[...] says where they were).
distil_recipe() { # file
    text nouns 60 31 >train.nouns.txt
    text others 60 32 >train.others.txt
    base_recipe >"$1"
    cat >>"$1" <<END
datasets:
  - {path: train.nouns.txt, tag: noun}
  - {path: train.others.txt, tag: other}
teachers:
  - {name: nouns, url: "${url[nouns]}", tags: [noun]}
  - {name: others, url: "${url[others]}", tags: [other]}
mixture: ca_mkd
targets: final_hidden
loss_functions:
  - {function: kl}
  - {function: hs_mse, normalize: true}
save_steps: 7
seed: 3
output_dir: run
END
}

# A large model of zeros that takes no room: its file of weights is a header and a hole.
hollow_model() { # folder, a student of the same tokenizer, layers (17 million weights each)
    local length shift
    mkdir "$1"
    cp "$tokenizer" "$2/tokenizer_config.json" "$1"
    jq --argjson layers "$3" '. + {hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: $layers,
        num_attention_heads: 16, num_key_value_heads: 16, head_dim: 64, torch_dtype: "float16"}' "$2/config.json" \
        >"$1/config.json"
    jq -cn --argjson v "$(jq .vocab_size "$2/config.json")" --argjson layers "$3" '
        [["model.embed_tokens.weight", [$v, 1024]], ["model.norm.weight", [1024]],
         (range($layers) as $l | [["self_attn.q_proj", [1024, 1024]], ["self_attn.k_proj", [1024, 1024]],
            ["self_attn.v_proj", [1024, 1024]], ["self_attn.o_proj", [1024, 1024]],
            ["mlp.gate_proj", [4096, 1024]], ["mlp.up_proj", [4096, 1024]], ["mlp.down_proj", [1024, 4096]],
            ["input_layernorm", [1024]], ["post_attention_layernorm", [1024]]][]
            | ["model.layers.\($l).\(.[0]).weight", .[1]])]
        | reduce .[] as $t ({at: 0, all: {}}; ($t[1] | reduce .[] as $d (2; . * $d)) as $n
            | .all[$t[0]] = {dtype: "F16", shape: $t[1], data_offsets: [.at, .at + $n]} | .at += $n) | .all' >"$1.header"
    length=$(wc -c <"$1.header")
    {
        for shift in 0 8 16 24 32 40 48 56; do
            # shellcheck disable=SC2059 # the byte is the format
            printf "\\x$(printf '%02x' $((length >> shift & 255)))"
        done
        cat "$1.header"
    } >"$1/model.safetensors"
    truncate -s "+$(jq '[.[].data_offsets[1]] | max' "$1.header")" "$1/model.safetensors"
}

# A tokenizer.json of 29 tokens as BERT has it: letters, as words and within them.
letters() {
    jq -n '("[PAD] [X] [Y] [UNK] [CLS] [SEP] a b c d e f g h i l m n o r s t u w ##e ##r ##s ##t ##o" | split(" ")) as $words |
    {version: "1.0", truncation: null, padding: null,
     added_tokens: ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] | map({id: (. as $w | $words | index($w)), content: ., special: true,
         single_word: false, lstrip: false, rstrip: false, normalized: false}),
     normalizer: {type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true},
     pre_tokenizer: {type: "BertPreTokenizer"},
     post_processor: {type: "TemplateProcessing", single: [{SpecialToken: {id: "[CLS]", type_id: 0}}, {Sequence: {id: "A", type_id: 0}},
         {SpecialToken: {id: "[SEP]", type_id: 0}}], pair: [{Sequence: {id: "A", type_id: 0}}, {Sequence: {id: "B", type_id: 1}}],
         special_tokens: {"[CLS]": {id: "[CLS]", ids: [4], tokens: ["[CLS]"]}, "[SEP]": {id: "[SEP]", ids: [5], tokens: ["[SEP]"]}}},
     decoder: {type: "WordPiece", prefix: "##", cleanup: true},
     model: {type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", max_input_chars_per_word: 100,
         vocab: [$words | to_entries[] | {(.value): .key}] | add}}'
}
