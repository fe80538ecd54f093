#!/bin/bash
# Packs bench programs with the libraries that they need, to be run on another machine, by turns where there are
# several: as the tree was and as it is.
#
# usage: tests/bench/carry.sh OUT.tar.gz NAME=BUILD ...
# BUILD: a build folder for the other machine's CPU (meson setup BUILD --buildtype=release -Dmarch=x86-64-v3, or -v4
# where it has AVX-512). There, whose C library must be as new as this one's:
#   tar xzf OUT.tar.gz && limbeck-bench/run.sh [RESULTS [THREADS...]]
# measures each program at each number of threads (all cores, then halves down to 1), shares out the time of the steps
# at the most, and leaves JSON lines in RESULTS (results): bench.jsonl, profile-NAME.jsonl, cpu.txt.
set -eu

if [ $# -lt 2 ]; then
    sed -n '5,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
out=$(realpath "$1")
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
to=$folder/limbeck-bench
mkdir -p "$to/lib"

for pair in "$@"; do
    name=${pair%%=*}
    program=${pair#*=}/tests/bench/bench_model
    mkdir "$to/$name"
    cp "$program" "$to/$name/" # with its symbols, which the profile reads
    # All but the C library and what belongs to it.
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | while IFS= read -r library; do
        case ${library##*/} in
        libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | ld-linux*) ;;
        *) cp -L -n "$library" "$to/lib/" ;;
        esac
    done
done

cat >"$to/run.sh" <<'END'
#!/bin/bash
# usage: run.sh [RESULTS [THREADS...]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
results=${1:-results}
mkdir -p "$results"
[ $# -eq 0 ] || shift
cores=$(nproc)
if [ $# -eq 0 ]; then
    for ((n = cores; n > 0; n /= 2)); do
        set -- "$@" "$n"
    done
fi
export LD_LIBRARY_PATH=$here/lib
unset OPENBLAS_CORETYPE GOMP_SPINCOUNT OMP_WAIT_POLICY
{ lscpu; cat /sys/kernel/mm/transparent_hugepage/enabled; uptime; } >"$results/cpu.txt" 2>&1 || true
for size in 10m 1m; do
    for n in "$@"; do
        for program in "$here"/*/bench_model; do
            name=$(basename "$(dirname "$program")")
            OMP_NUM_THREADS=$n "$program" "$size" 3 | sed "s/^{/{\"program\": \"$name\", \"threads\": $n, /" >>"$results/bench.jsonl"
        done
    done
    for program in "$here"/*/bench_model; do
        OMP_NUM_THREADS=$1 "$program" "$size" 5 --profile >>"$results/profile-$(basename "$(dirname "$program")").jsonl"
    done
done
END
chmod +x "$to/run.sh"
tar czf "$out" -C "$folder" limbeck-bench
echo "$out: $(du -h "$out" | cut -f 1)"
