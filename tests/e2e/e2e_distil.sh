#!/bin/bash
# The whole way: two daemons, a student of both, its export opened by a third daemon, by eval, generate and export.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

say "teachers"
make_teachers 120
echo between-the-two-of-them >token
chmod 600 token
host nouns nouns/student --token-file token
host others others/student --token-file token

say "a student of both"
distil_recipe distil.yaml
sed -i 's/tags: \[/token_file: token, &/' distil.yaml
cat >>distil.yaml <<END
eval_datasets:
  - {path: test.nouns.txt, tag: noun}
  - {path: test.others.txt, tag: other}
eval_steps: 20
END
expect 0 distil.log "$limbeck" train distil.yaml
said distil.log teachers=2 "step 40/40" "held-out perplexity"
never_said distil.log warn teacher_lost teacher_offline
holds -s '[.[] | select(.loss)] | length == 40 and .[39].loss < 0.7 * .[0].loss
    and .[39]["loss/kl"] < .[0]["loss/kl"] and .[39]["loss/hs_mse"] < .[0]["loss/hs_mse"]
    and all(.[]; .["weight/nouns"] + .["weight/others"] | (. > 0.999 and . < 1.001))' run/metrics.jsonl

say "and the same student alone"
sed '/^teachers:/,/^targets:/d; /hs_mse/d; s/function: kl/function: cross_entropy/' distil.yaml >alone.yaml
expect 0 alone.log "$limbeck" train alone.yaml --output-dir alone
said alone.log teachers=0
data=(noun=test.nouns.txt other=test.others.txt)
score() { # file, model...
    local file=$1
    shift
    "$limbeck" eval --json --tokenizer "$tokenizer" "$@" "${data[@]}" --max-length 24 >"$file" 2>eval.log || fail "eval $*: $(cat eval.log)"
}
score distilled.json run
score alone.json alone
holds -n --slurpfile a distilled.json --slurpfile b alone.json '$a[0].balanced_perplexity < $b[0].balanced_perplexity'

say "weights by the labels' cross entropy where no loss reads distributions"
sed '/function: kl/d' distil.yaml >states.yaml
expect 0 states.log "$limbeck" train states.yaml --output-dir states --set max_steps=3 --set eval_steps=0
holds -s '[.[] | select(.loss)] | length == 3 and any(.[]; .["weight/nouns"] - 0.5 | fabs > 0.001)' states/metrics.jsonl

say "the student as the next teacher"
host third run/student
score folder.json run/student
score hosted.json "${url[third]}"
close='def close(a; b; e): ((a - b) / b | fabs) < e;'
holds -n --slurpfile a folder.json --slurpfile b hosted.json "$close"'
    close($a[0].all.perplexity; $b[0].models[0].all.perplexity; 1e-5)
    and close($a[0].balanced_perplexity; $b[0].models[0].balanced_perplexity; 1e-5)
    and $a[0].all.tokens == $b[0].models[0].all.tokens'
# What the trainer measured at the end is what eval measures now.
holds -n --slurpfile a folder.json --slurpfile m run/metrics.jsonl "$close"'
    close($a[0].all.perplexity; [$m[] | .eval_perplexity // empty][-1]; 1e-6)'

say "exports"
check_export() { # format, dtype, tolerance
    local out=student-$2.$1
    expect 0 export.log "$limbeck" export run --format "$1" --dtype "$2" --out "$out"
    said export.log "written, reopened, logits agree"
    score export.json "$out"
    holds -n --slurpfile a folder.json --slurpfile b export.json --argjson e "$3" "$close"'
        close($a[0].all.perplexity; $b[0].all.perplexity; $e)'
}
check_export hf f32 1e-9
check_export hf bf16 2e-2
check_export gguf f32 1e-6
check_export gguf f16 2e-3
check_export gguf q8_0 2e-2
# What an architecture of GGUF cannot say of a window: the file ends before it, and that is told.
expect 0 window.log "$limbeck" export "$LB_SOURCE_ROOT/tests/golden/model/ministral" --format gguf --no-vocabulary --out window.gguf
said window.log "logits agree" export_note "reads 6 tokens, not 64"
expect 2 refused.log "$limbeck" export run --format hf --dtype q8_0 --out no
said refused.log "q8_0 is for --format gguf"

say "generation"
write() { # model
    "$limbeck" generate "$1" --prompt "a small" --max-new-tokens 12 --temperature 0 2>/dev/null
}
[ -n "$(write run)" ] || fail "nothing was written"
for other in run/student student-f32.hf student-f32.gguf; do
    [ "$(write run)" = "$(write "$other")" ] || fail "$other writes something else: $(write "$other")"
done

say "a .gguf file alone: its vocabulary is the tokenizer"
host alone student-f32.gguf
expect 0 alone.json "$limbeck" eval --json student-f32.gguf "${data[@]}" --max-length 24
holds -n --slurpfile a folder.json --slurpfile b alone.json '($a[0].all.perplexity - $b[0].all.perplexity) | fabs < 1e-6 * $a[0].all.perplexity'
for line in "a small <eos>still" "It's  12345 stills,	naïve!"; do
    [ "$("$limbeck" tokenize run "$line")" = "$("$limbeck" tokenize student-f32.gguf "$line")" ] || fail "other ids for $line"
done
curl -sf "${url[alone]}/v2/models/alone/tokenizer" >alone-tokenizer.json
[ "$("$limbeck" tokenize alone-tokenizer.json "a still")" = "$("$limbeck" tokenize run "a still")" ] || fail "other ids by the served one"
said_fingerprint() { curl -sf "${url[$1]}/v2/models/$1" | jq -r .parameters.tokenizer_fingerprint; }
[ "$(said_fingerprint alone)" = "$(said_fingerprint third)" ] || fail "the same tokenizer has two fingerprints"
expect 0 vocabulary.log "$limbeck" train alone.yaml --output-dir vocabulary --set max_steps=1 --set eval_steps=0 --set tokenizer=student-f32.gguf
cmp vocabulary/student/tokenizer.json alone-tokenizer.json
# What a GGUF has no key for, and the check of what was written finds: an unknown token for a byte.
jq '.model.unk_token = "<eos>" | del(.model.vocab["ā"])' "$tokenizer" >unknown.json
expect 1 unknown.log "$limbeck" export run --format gguf --out unknown.gguf --tokenizer unknown.json
said unknown.log "cuts text otherwise" no-vocabulary
expect 0 none.log "$limbeck" export run --format gguf --out none.gguf --no-vocabulary
expect 1 none2.log "$limbeck" tokenize none.gguf "a still"
said none2.log "no vocabulary in this file"

say "probe"
host again run/student
expect 0 probe.json "$limbeck" probe --json "${url[third]}" "${url[again]}"
holds '(.teachers | length) == 2 and (.teachers[0].fingerprint == .teachers[1].fingerprint)
    and .agreement[0].identical and .agreement[0].agree' probe.json
expect 0 probe2.json "$limbeck" probe --json --token-file token "${url[nouns]}" "${url[others]}"
holds '.teachers[0].fingerprint != .teachers[1].fingerprint and .agreement == []
    and .teachers[0].tokenizer_fingerprint == .teachers[1].tokenizer_fingerprint' probe2.json

say "an answer's digest, made again with other tools"
curl -sf -D headers -o answer.json "${url[third]}/v2/models/third/infer" -d '{"parameters": {"answer_digest": true, "top_k": 2},
    "inputs": [{"name": "input_ids", "datatype": "INT32", "shape": [1, 3], "data": [5, 6, 7]}]}'
of=$(sed -n 's/^limbeck-request-digest: sha-256=\([0-9a-f]*\).*/\1/Ip' headers)
[ ${#of} -eq 64 ] || fail "no digest of the request"
{ printf '%s' "$of" && head -c -77 answer.json; } | sha256sum | cut -d ' ' -f 1 >wanted
jq -r .digest answer.json | cmp - wanted || fail "another digest than that of the bytes"
curl -sf "${url[third]}/v2/models/third" | jq -er .parameters.compute >wanted
jq -r .parameters.compute answer.json | cmp - wanted || fail "another compute than the metadata's"
