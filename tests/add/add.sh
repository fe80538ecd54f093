#!/bin/bash
# "Where to add" of ARCHITECTURE.md, tried: a loss, a mixture, an output, a family of models and a dialect are added to a
# copy of the tree as its rows say, all are built, and what a test sees of each is looked at.
#
#   add.sh ROOT     (LB_ADD_FOLDER: where to build; by default a temporary folder that goes afterwards.
#                    LB_ADD_PYTHON: a Python that has torch and safetensors, to make golden values of what is added)
#
# The new files lie in tests/add/<what>/ under the paths that they get. Lines are put into tables beside a row that is
# there. A change that touches a file which its row of ARCHITECTURE.md doesn't name fails, and so does a row of which this
# script knows nothing. Beside what the row names, only a new file's header, and the meson.build beside it, may change.
set -euo pipefail
root=$(cd "${1:?usage: add.sh ROOT}" && pwd)
for tool in meson ninja curl jq; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is not installed"
        exit 77
    fi
done
unset DESTDIR
folder=${LB_ADD_FOLDER:-$(mktemp -d "${TMPDIR:-/tmp}/limbeck-add-XXXXXX")}
daemon=0
tidy() {
    status=$?
    [ "$daemon" -eq 0 ] || kill "$daemon" 2>/dev/null || true
    [ -n "${LB_ADD_FOLDER:-}" ] || rm -rf "$folder"
    exit $status
}
trap tidy EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

tree=$folder/tree
rm -rf "$tree"
mkdir -p "$tree"
(cd "$root" && tar cf - --exclude='build*' --exclude=.git meson.build meson_options.txt ARCHITECTURE.md README.md common proto \
    server trainer examples docker tests) | tar xf - -C "$tree"
cd "$tree"

# ---- changing the tree ----

# Puts a line behind the first one that matches; the file must have one.
line() { # file, pattern, line
    grep -qE -- "$2" "$1" || fail "$1 has no line like $2; how lines are added to it has changed"
    LB_LINE=$3 LB_AT=$2 awk '{ print } !done && $0 ~ ENVIRON["LB_AT"] { print ENVIRON["LB_LINE"]; done = 1 }' "$1" >"$folder/new"
    cp "$folder/new" "$1"
}

# Puts a row in front of the last one of a table that is a macro of several lines.
row() { # file, macro, row
    LB_ROW=$3 LB_MACRO="^#define $2[(]" awk '$0 ~ ENVIRON["LB_MACRO"] { inside = 1 }
        inside && !/\\$/ { print ENVIRON["LB_ROW"] " \\"; inside = 0 }
        { print }' "$1" >"$folder/new"
    ! cmp -s "$folder/new" "$1" || fail "$1 has no table $2 of several lines; how rows are added to it has changed"
    cp "$folder/new" "$1"
}

# Replaces the pattern where it first matches.
change() { # file, sed expression
    sed -E "$2" "$1" >"$folder/new"
    ! cmp -s "$folder/new" "$1" || fail "$1: nothing is changed by $2; how lines are added to it has changed"
    cp "$folder/new" "$1"
}

# ---- what the rows of ARCHITECTURE.md allow ----

rows() {
    sed -n '/^## Where to add$/,/^## /p' ARCHITECTURE.md | sed -n 's/^| \(an\{0,1\} [^|]*[^| ]\) *|.*/\1/p'
}

# The paths that a row names, <name> as any word.
paths_of() { # row
    grep -F "| $1 |" ARCHITECTURE.md | grep -oE '`[A-Za-z0-9_./<>]+`' | tr -d '`' | grep / | sed 's/<[a-z]*>/*/g'
}

may_change() { # file, row, new files
    local pattern
    while read -r pattern; do
        # shellcheck disable=SC2053 # a pattern is meant
        [[ $1 != $pattern ]] || return 0
    done < <(paths_of "$2")
    case $1 in
    */meson.build) grep -q "^${1%/meson.build}/[^/]*$" <<<"$3" ;;
    *.h) grep -qx "${1%.h}.c" <<<"$3" ;;
    *) return 1 ;;
    esac
}

report=$folder/report
: >"$report"
tried=()
add() { # row, folder of new files, function that adds lines
    local what=$1 from=$root/tests/add/$2 file new changed n_new=0 n_changed=0
    tried+=("$what")
    grep -qF "| $what |" ARCHITECTURE.md || fail "ARCHITECTURE.md has no row \"$what\""
    rm -rf "$folder/before"
    cp -r "$tree" "$folder/before"
    new=$(cd "$from" && find . -type f | sed 's|^\./||' | LC_ALL=C sort)
    for file in $new; do
        [ ! -e "$file" ] || fail "$file is there already: tests/add needs another name"
        cp "$from/$file" "$file"
        n_new=$((n_new + 1))
        may_change "$file" "$what" "$new" || fail "$what: its row in ARCHITECTURE.md doesn't name $file"
    done
    "$3"
    changed=$({ diff -rq "$folder/before" "$tree" || true; } | sed -n "s|^Files .* and $tree/\(.*\) differ\$|\1|p")
    for file in $changed; do
        n_changed=$((n_changed + 1))
        may_change "$file" "$what" "$new" || fail "$what: its row in ARCHITECTURE.md doesn't name $file"
    done
    # shellcheck disable=SC2086 # one line of names
    printf '%-18s %d new, %d changed: %s\n' "$what" "$n_new" "$n_changed" "$(echo $new $changed)" | tee -a "$report"
}

# ---- the five ----

add_loss() {
    line trainer/loss/meson.build 'files\($' "  'brier.c',"
    row trainer/loss/loss.c LOSSES '    X(brier)'
    change tests/grad/test_grad_losses.c '0,/^static const struct \{/s||static double brier(const double *z, int32_t label, const struct lb_target *t) {\n    (void)label;\n    double q[V], sum = 0;\n    lb_formula_softmax(z, t->temperature, q);\n    for (int i = 0; i < V; i++) {\n        sum += (q[i] - t->p[i]) * (q[i] - t->p[i]);\n    }\n    return sum;\n}\n\n&|'
    line tests/grad/test_grad_losses.c '^\} formulas\[\]' '    {"brier", brier},'
    change tests/golden/make_losses.py 's|^LOSSES = .*|def brier(z, lane, temperature):\n    log_p, log_q = distributions(z, lane, temperature)\n    return ((log_q.exp() - log_p.exp()) ** 2).sum(-1)\n\n\n&|'
    line tests/golden/make_losses.py '^LOSSES = ' '    "brier": (brier, DENSE),'
}

add_mixture() {
    line trainer/loss/meson.build 'files\($' "  'mix_likelihood.c',"
    row trainer/loss/mixture.c MIXTURES '    X(likelihood)'
    change tests/grad/test_grad_losses.c 's|^/\* CA-MKD .Zhang.*|static void likelihood_weights(const struct lb_weighing *in, double *w) {\n    for (unsigned k = 0; k < in->n; k++) {\n        w[k] = in->given[k] * exp(-in->cross_entropy[k]);\n    }\n}\n\n&|'
    line tests/grad/test_grad_losses.c '^\} mixture_formulas\[\]' '    {"likelihood", likelihood_weights},'
    line tests/golden/make_mixtures.py '^weights = ' '    "likelihood": F.softmax(-ce, 0),'
    change tests/golden/make_mixtures.py 's|^(COMBINED = .)|\1"likelihood": "probs", |'
}

add_output() {
    change server/engine/meson.build "s|'extract.c'|&, 'entropy.c'|"
    row proto/outputs.h LB_OUTPUTS '    X(ENTROPY, "entropy", FP32, NONE, LOGITS, ONE, NUMBERS, LB_USES_TEMPERATURE, entropy)'
    line proto/PROTOCOL.md '^\| `logsumexp` \|' '| `entropy` | FP32 | `[B, R]` | entropy of the row, in nats |'
    change proto/openapi.yaml 's/(pattern:.*)\|residuals/\1|entropy|residuals/'
}

add_family() {
    line common/model/meson.build 'files\($' "  'twin.c',"
    row common/model/families.c FAMILIES '    F(twin)'
}

add_dialect() {
    change proto/meson.build "s|'outputs.c'|&, 'plain.c'|"
    line server/api/meson.build 'files\($' "  'plain.c',"
    line trainer/wire/meson.build 'files\($' "  'plain.c',"
    change server/api/table.c 's/^(#define DIALECTS\(X\)) /\1 X(plain) /'
    change trainer/wire/dialect.h 's/^(#define LB_DIALECTS\(X\).*)$/\1 X(PLAIN, plain)/'
}

add 'a loss' loss add_loss
add 'a mixture' mixture add_mixture
add 'a wire output' output add_output
add 'a family of models' family add_family
add 'a wire dialect' dialect add_dialect

# Not tried here: tests/lint/architecture.sh sees that the files they name are there.
known=('a parameter of losses' 'a recipe key' 'an op' 'a block format of GGUF' 'a file format' 'a name of `tokenizer.ggml.pre`'
    'a tokenizer model' 'a filter, test, method of chat templates' 'a normalizer, pre-tokenizer or decoder' 'a Unicode version'
    'a form of records' 'a kind of data' 'a sub-command' 'a larger model with a text model of ours within' 'an optimizer'
    'a dialect of recipes')
listed=$(rows) # not piped into grep -q, which may end before the other end has written
while read -r row; do
    grep -qFx -- "$row" <(printf '%s\n' "${tried[@]}" "${known[@]}") || fail "ARCHITECTURE.md has a row \"$row\" that is not tried"
done <<<"$listed"
for row in "${tried[@]}" "${known[@]}"; do
    grep -qFx -- "$row" <<<"$listed" || fail "ARCHITECTURE.md has no row \"$row\""
done

# ---- built, and seen ----

for lint in includes architecture; do
    sh tests/lint/$lint.sh "$tree" || fail "tests/lint/$lint.sh"
done

tests=(unit/test_proto_document unit/test_server_outputs unit/test_server_routes unit/test_model_families
    unit/test_trainer_recipe grad/test_grad_losses grad/test_grad_step)
build=$folder/build
# Not optimised: compiling is most of the time.
[ -f "$build/build.ninja" ] || meson setup "$build" "$tree" --buildtype=plain >"$folder/log" 2>&1 || { tail "$folder/log"; fail "meson"; }
proofs=(grad/test_grad_between grad/test_grad_internals golden/test_golden_losses golden/test_golden_internals golden/test_golden_uld golden/test_golden_alm
    golden/test_golden_mixtures golden/test_golden_optimizer)
ninja -C "$build" -j "${LB_ADD_JOBS:-2}" server/limbeckd trainer/limbeck "${tests[@]/#/tests/}" "${proofs[@]/#/tests/}" >"$folder/log" 2>&1 ||
    { grep -E 'error|FAILED' "$folder/log" | head -n 20; fail "it doesn't build"; }
export LB_SOURCE_ROOT=$tree LB_BUILD_ROOT=$build OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
for test in "${tests[@]}"; do
    "$build/tests/$test" >"$folder/log" 2>&1 || { tail -n 20 "$folder/log"; fail "$test"; }
    case $test in
    grad/*) # each says what it looked at
        grep -q likelihood "$folder/log" || grep -q brier "$folder/log" || fail "$test says nothing of what is new" ;;
    esac
done
# Nobody has golden values of them yet, which is seen, and of nothing else; then they are made.
! sh tests/proofs.sh "$build" >"$folder/table" 2>"$folder/log" || fail "tests/proofs.sh misses no golden values of what is new"
missing=$(awk -F ' *[|] *' '/MISSING/ { print $3 }' "$folder/table" | LC_ALL=C sort -u | tr '\n' ' ')
[ "$missing" = 'brier likelihood ' ] || { cat "$folder/log"; fail "tests/proofs.sh misses: $missing"; }
if [ -n "${LB_ADD_PYTHON:-}" ]; then
    for what in losses mixtures; do
        "$LB_ADD_PYTHON" tests/golden/make_$what.py >"$folder/log" 2>&1 || { tail "$folder/log"; fail "tests/golden/make_$what.py"; }
    done
    sh tests/proofs.sh "$build" >"$folder/table" 2>"$folder/log" || { cat "$folder/log"; grep MISSING "$folder/table"; fail "tests/proofs.sh"; }
fi
"$build/trainer/limbeck" train --help-recipe >"$folder/help"
for name in brier likelihood twin plain; do
    grep -qw "$name" "$folder/help" || fail "limbeck train --help-recipe doesn't name $name"
done

# A qwen2 by another name: a model of the new family, asked for the new output, and its line in the new dialect.
mkdir -p "$folder/models"
for name in qwen2 twin; do
    rm -rf "$folder/models/$name"
    cp -r tests/golden/model/qwen2 "$folder/models/$name"
done
jq '.model_type = "twin" | del(.max_window_layers, .sliding_window, .use_sliding_window, .layer_types)' tests/golden/model/qwen2/config.json >"$folder/models/twin/config.json"
rm -f "$folder/port"
"$build/server/limbeckd" --listen=127.0.0.1:0 --port-file="$folder/port" --repository="$folder/models" 2>"$folder/log" &
daemon=$!
for ((i = 0; i < 1000; i++)); do
    [ ! -s "$folder/port" ] || break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.02
done
[ -s "$folder/port" ] || { tail "$folder/log"; fail "limbeckd doesn't start"; }
url=http://127.0.0.1:$(cat "$folder/port")
for name in qwen2 twin; do
    curl -sS "$url/v2/models/$name/infer" -d '{"parameters": {"temperature": 2}, "inputs": [{"name": "input_ids", "datatype": "INT32",
        "shape": [1, 5], "data": [3, 1, 4, 1, 5]}], "outputs": [{"name": "logits"}, {"name": "entropy"}]}' >"$folder/$name.json"
    jq -e '(.outputs[0].shape[2]) as $v | [.outputs[0].data | flatten | _nwise($v) | map(. / 2) | . as $z
            | (map(exp) | add | log) as $lse | $lse - ($z | map(exp / ($lse | exp) * .) | add)] as $want
        | [$want, (.outputs[1].data | flatten)] | transpose | length == 5 and all(.[]; (.[0] - .[1]) * 1e4 | fabs < 1)' \
        "$folder/$name.json" >/dev/null || { head -c 300 "$folder/$name.json"; fail "entropy of $name"; }
done
[ "$(jq -c .outputs "$folder/qwen2.json")" = "$(jq -c .outputs "$folder/twin.json")" ] || fail "a twin of qwen2 answers otherwise"
[ "$(curl -sS "$url/plain/twin")" = "twin $(jq -r .model_version "$folder/twin.json")" ] || fail "GET /plain/twin"
[ "$(curl -sS "$url/plain/nobody" | jq -r keys[0])" = plain ] || fail "an error of the new dialect has another's form"
[ "$(curl -sS "$url/v2/models/nobody" | jq -r keys[0])" = error ] || fail "an error of the old dialect has another's form"
echo "all five: built, $((${#tests[@]})) tests and the daemon see them"
