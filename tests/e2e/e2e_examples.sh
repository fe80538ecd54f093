#!/bin/bash
# What the scripts of the examples with real models do before and after there are models: they refuse, and they reckon.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"
examples=$LB_SOURCE_ROOT/examples

say "Gemma's terms are shown, and nothing happens before they are accepted"
expect 1 terms.log "$examples/gemma/run" --build "$PWD/nowhere"
said terms.log ai.google.dev/gemma/terms "say --accept-gemma-terms"
never_said terms.log "== Build"
GEMMA=$PWD/missing.gguf expect 1 missing.log "$examples/gemma/run" --accept-gemma-terms --build "$LB_BUILD_ROOT"
said missing.log ai.google.dev/gemma/terms "GEMMA: there is no $PWD/missing.gguf"
SMOLLM=$PWD/missing.gguf expect 1 missing.log "$examples/smollm/run" --build "$LB_BUILD_ROOT"
said missing.log "SMOLLM: there is no $PWD/missing.gguf"
for name in smollm gemma minilm table; do
    expect 2 usage.log "$examples/$name/run" --no-such-option 1
    expect 0 usage.log "$examples/$name/run" --help
    said usage.log "usage: examples/$name/run"
done

say "a table like the digits, made up: its script teaches two of each, and the recipes say which tables they are for"
python3 - <<'END'
import gzip, random
random.seed(1)
means = [[random.uniform(0, 16) for _ in range(60)] for _ in range(10)]
with gzip.open('digits.csv.gz', 'wt') as file:
    for i in range(900): # the first four columns are the same in all rows
        digit = random.randrange(10)
        numbers = [0] * 4 + [round(min(16, max(0, random.gauss(mean, 8)))) for mean in means[digit]]
        file.write(','.join(map(str, numbers + [digit])) + '\n')
END
DIGITS=$PWD/missing.gz expect 1 missing.log "$examples/table/run" --build "$LB_BUILD_ROOT"
said missing.log "DIGITS: there is no $PWD/missing.gz"
DIGITS=$PWD/digits.csv.gz expect 1 narrow.log "$examples/table/run" --build "$LB_BUILD_ROOT" --out "$PWD/table" --seeds 1 --steps 5
said narrow.log "features, the student's input_size is 61"
gzip -dc digits.csv.gz | awk -F, -v OFS=, '{$4 = NR % 16; print}' | gzip >wide.csv.gz
DIGITS=$PWD/wide.csv.gz expect 0 digits.log "$examples/table/run" --build "$LB_BUILD_ROOT" --out "$PWD/table" --seeds 2 --steps 100
[ "$(wc -l <table/train.csv) $(wc -l <table/test.csv)" = "601 301" ] || fail "the table was divided otherwise"
cmp <(head -1 table/train.csv) <(head -1 table/test.csv) || fail "the tables have other columns"
holds '.rows | length == 5 and all(.[]; (.each | length) == 2 and .accuracy_percent > 20)' table/table.json

say "the table: means over seeds, against the student alone and the best teacher"
cat >reckon.sh <<'END'
set -eu -o pipefail
here=$PWD build=nowhere seeds=2
. "$1/lib.sh"
row() { # name, bits
    echo "{\"parameters\": 1000, \"bytes\": 4000000, \"bits_per_byte\": $2, \"tokens_per_second\": 20,
        \"tokens_per_second_generating\": 10, \"writes\": \" a stream of $1\\nagain\"}" >"$1.json"
}
row big 1.5; row other 1.7; row alone-1 2.5; row alone-2 2.7; row taught-1 2.2; row taught-2 2.0
table teacher=Big=big teacher=Other=other "alone=student alone=$(names alone)" "student=student taught=$(names taught)"
END
expect 0 table.log bash reckon.sh "$examples"
holds '[.rows[].bits_per_byte] | map(. * 1000 | round) == [1500, 1700, 2600, 2100]' table.json
holds '.rows[3] | .each == [2.2, 2] and (.fewer_bits_percent * 100 | round) == 1923
    and (.gap_closed_percent * 100 | round) == 4545' table.json
said table.log "student taught, by seed: 2.2, 2" "19.2 % fewer bits than alone; 45 % of the gap" "brook:  a stream of taught-1"
never_said table.log again
