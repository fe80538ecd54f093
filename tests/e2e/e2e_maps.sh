#!/bin/bash
# A student with a small part of its teacher's vocabulary asks through a map of it: the same student as without the map, for a
# fraction of the bytes; a teacher that was started anew in mid-run is sent the map again.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"
command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }
nouns=$LB_SOURCE_ROOT/examples/wordnet/teachers/nouns

text nouns 300 1 >nouns.txt
expect 0 trim.log "$limbeck" tokenizer trim "$nouns" --corpus nouns.txt --size 280 --out small
host nouns "$nouns"
start plain.log python3 "$LB_SOURCE_ROOT/tests/e2e/proxy.py" "${url[nouns]}" plain.port no_maps
await test -s plain.port
plain=http://127.0.0.1:$(cat plain.port)
base_recipe | sed '/^tokenizer:/d' >student.yaml
cat >>student.yaml <<END
tokenizer: small
datasets: [{path: nouns.txt}]
teachers: [{name: nouns, url: "${url[nouns]}"}]
loss_functions: [{function: kl}]
targets: logits
loss_top_k: 2048
fp16_targets: false
prefetch: 1
END
without=(--set "teachers.0.url=$plain")

train() { # run folder, option...
    local name=$1
    shift
    expect 0 "$name.log" "$limbeck" train student.yaml --output-dir "$name" "$@"
    jq -s '[.[] | select(.loss)]' "$name/metrics.jsonl" >"$name.json"
}

fewer() { # run folder, run folder, times: the bytes of the first are fewer than those of the second by that factor at least
    local few many
    few=$(done_number "$1.log" teacher_bytes)
    many=$(done_number "$2.log" teacher_bytes)
    echo "bytes: $1 $few, $2 $many"
    [ $((few * $3)) -le "$many" ] || fail "$1 took $few bytes, $2 $many"
}

near() { # run folder, run folder, most of a step's loss that they differ by, of the mass outside
    jq -nr --slurpfile a "$1.json" --slurpfile b "$2.json" '[$a[0], $b[0]] | transpose | [
        (map((.[0].loss - .[1].loss | fabs) / .[1].loss) | max),
        (map(.[0]["tail_mass/nouns"] - .[1]["tail_mass/nouns"] | fabs) | max)] | @tsv' >near.txt
    echo "$1 and $2: loss and mass outside differ by at most $(cat near.txt)"
    awk -v loss="$3" -v mass="$4" '{ exit !($1 <= loss && $2 <= mass) }' near.txt || fail "$1 is not near $2"
}

say "whole logits: the same student, bit for bit, at any temperature"
train logits
train logits.plain "${without[@]}"
same_student logits logits.plain
fewer logits logits.plain 7
train warm --set temperature=2
train warm.plain --set temperature=2 "${without[@]}"
same_student warm warm.plain
other_student warm logits

say "lists of all that it has: the same to what floats round"
train lists --set targets=topk
train lists.plain --set targets=topk "${without[@]}"
fewer lists lists.plain 6
near lists lists.plain 1e-3 1e-6
near lists logits 1e-3 1e-6

say "short lists are of what it has: all that lies outside is known all the same"
train short --set targets=topk --set loss_top_k=16
holds --slurpfile b logits.json '.[0]["tail_mass/nouns"] - $b[0][0]["tail_mass/nouns"] | fabs < 1e-6' short.json

say "final states are asked without"
train states --set targets=final_hidden
train states.plain --set targets=final_hidden "${without[@]}"
same_student states states.plain

say "cached answers know their map"
train filled --set cache_dir=cache
train other --set cache_dir=cache "${without[@]}"
[ "$(done_number other.log teacher_requests)" -gt 0 ] || fail "answers of other shapes were taken from the cache"
train cached --set cache_dir=cache
[ "$(done_number cached.log teacher_requests)" -eq 0 ] || fail "a cached run asked"
same_student logits cached

say "a teacher that comes back without the map is sent it again"
start lost.log "$limbeck" train student.yaml --output-dir lost
await reached lost 5
drop nouns
host nouns "$nouns"
ends_with 0 "$job" lost.log
said lost.log 'vocab_map_lost teacher=nouns'
same_student logits lost
