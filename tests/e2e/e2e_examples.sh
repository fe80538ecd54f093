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
for name in smollm gemma minilm; do
    expect 2 usage.log "$examples/$name/run" --no-such-option 1
    expect 0 usage.log "$examples/$name/run" --help
    said usage.log "usage: examples/$name/run"
done

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
