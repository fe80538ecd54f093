#!/bin/bash
# Machines whose kernels compute other bits are not taken for each other: replicas, resumes, caches.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

compute_of() { # name: what the daemon says of its only model
    curl -sf "${url[$1]}/v2/models/${served[$1]:-$1}" | jq -er .parameters.compute
}

cpu_has() { # instruction sets...
    local set
    for set in "$@"; do
        grep -qw "$set" /proc/cpuinfo || return 1
    done
}

if ! cpu_has avx2 fma; then
    say "skipped: this CPU can't run OpenBLAS's kernels Haswell"
    exit 77
fi
cpu_has avx512f avx512dq avx512bw avx512vl && unlike=SkylakeX || unlike=Sandybridge
export OPENBLAS_CORETYPE=Haswell
make_teachers 10
served=([twin]=nouns [same]=nouns)
host nouns nouns/student
host others others/student
OPENBLAS_CORETYPE=$unlike host twin nouns/student
[[ $(compute_of nouns) =~ ^[0-9a-f]{64}$ ]] || fail "no compute: $(compute_of nouns)"
if [ "$(compute_of nouns)" = "$(compute_of twin)" ]; then
    say "skipped: OpenBLAS's kernels Haswell and $unlike compute the same bits on this CPU"
    exit 77
fi
host same nouns/student
[ "$(compute_of nouns)" = "$(compute_of same)" ] || fail "two daemons of one kind compute unlike bits"
distil_recipe distil.yaml

answers() { # name: how many requests it has answered
    grep -c 'path="[^"]*/infer".*status=200' "$1.log" || true
}

with_nouns() { # file, url, replica's url or none
    sed "s#url: \"${url[nouns]}\"#url: \"$2\"${3:+, replicas: [\"$3\"]}#" distil.yaml >"$1"
}

say "what it is about: the same recipe, the same model, other kernels, another student"
expect 0 run.log "$limbeck" train distil.yaml
with_nouns twin.yaml "${url[twin]}"
expect 0 twin-run.log "$limbeck" train twin.yaml --output-dir twin-run
other_student run twin-run

say "replicas of unlike kernels: refused, both named, the word that allows it too"
with_nouns mixed.yaml "${url[nouns]}" "${url[twin]}"
expect 1 mixed.log "$limbeck" train mixed.yaml --output-dir mixed
one_error mixed.log
said mixed.log "teacher nouns" "${url[nouns]}" "${url[twin]}" Haswell "$unlike" "allow_other_kernels: true"
[ ! -e mixed/metrics.jsonl ] || fail "it began all the same"

before=$(answers twin)
say "allowed by the recipe's word, which stands in the run folder"
expect 0 allowed.log "$limbeck" train mixed.yaml --output-dir allowed --set allow_other_kernels=true
said allowed.log other_kernels "$unlike"
[ "$(answers twin)" -gt "$before" ] || fail "the replica was not asked"
said allowed/recipe.yaml "allow_other_kernels: true"

say "a cache keeps the answers of each apart"
expect 0 filled.log "$limbeck" train distil.yaml --output-dir filled --set cache_dir=cache
expect 0 again.log "$limbeck" train distil.yaml --output-dir again --set cache_dir=cache
[ "$(done_number again.log teacher_requests)" -eq 0 ] || fail "what is cached was asked again"
expect 0 apart.log "$limbeck" train twin.yaml --output-dir apart --set cache_dir=cache
[ "$(done_number apart.log teacher_requests)" -gt 0 ] || fail "answers of other kernels were taken from the cache"
same_student run again
same_student twin-run apart

say "a replica that changes its kernels in mid-run is set aside"
with_nouns both.yaml "${url[nouns]}" "${url[same]}"
start both.log "$limbeck" train both.yaml --output-dir both --set prefetch=1
await reached both 5
kill -STOP "$job"
drop same
OPENBLAS_CORETYPE=$unlike host same nouns/student
kill -CONT "$job"
ends_with 0 "$job" both.log
said both.log replica_aside "other kernels"
same_student run both

say "a resume on another teacher's machine, or on another of its own"
start resumed0.log "$limbeck" train distil.yaml --output-dir resumed --set prefetch=1
await reached resumed 8
kill -INT "$job"
ends_with 3 "$job" resumed0.log
expect 1 resumed1.log "$limbeck" train twin.yaml --output-dir resumed --resume
one_error resumed1.log
said resumed1.log "teacher nouns: " Haswell "$unlike" allow_other_kernels
OPENBLAS_CORETYPE=$unlike expect 1 resumed2.log "$limbeck" train distil.yaml --output-dir resumed --resume
one_error resumed2.log
said resumed2.log "the trainer itself" Haswell "$unlike" allow_other_kernels
cp -r resumed moved
expect 0 resumed3.log "$limbeck" train distil.yaml --output-dir resumed --resume
same_student run resumed
OPENBLAS_CORETYPE=$unlike expect 0 moved.log "$limbeck" train distil.yaml --output-dir moved --resume \
    --set allow_other_kernels=true
said moved.log "other_kernels checkpoint=" "the trainer itself"
said moved/recipe.yaml "allow_other_kernels: true"
