#!/bin/bash
# Data that are no texts: a shard of a text's ids is that text; sets by weight resume to the same bits; tables teach.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

text nouns 400 1 >data.txt
text others 200 2 >rest.txt
base_recipe >recipe.yaml
cat >>recipe.yaml <<END
datasets: [{path: data.txt}]
loss_functions: [{function: cross_entropy}]
seed: 5
output_dir: run
END
expect 0 text.log "$limbeck" train recipe.yaml -o text
eos=$(jq '.eos_token_id' text/student/config.json)
"$limbeck" tokenize "$tokenizer" <data.txt | sed "s/\$/ $eos/" >ids
python3 - <<'END'
import struct
ids = [int(x) for x in open('ids').read().split()]
open('data.bin', 'wb').write(struct.pack('<%dH' % len(ids), *ids))
open('llama3.bin', 'wb').write(struct.pack('<256i', 20240801, 7, len(ids), *[0] * 253) + struct.pack('<%dI' % len(ids), *ids))
END

say "a shard of a text's ids is worth what the text is"
for data in data.txt data.bin llama3.bin; do
    expect 0 "$data.json" "$limbeck" eval text "$data" --max-length 24 --json
done
holds -s 'map([.. | .loss? // empty, .bits_per_byte? // empty]) | (.[0] | length) >= 2 and .[0] == .[1] and .[1] == .[2]' \
    data.txt.json data.bin.json llama3.bin.json

say "commands that read data take one member of JSON lines for the text, whatever the file is called"
jq -cR '{words: ., text: "no"}' data.txt >data.json
for data in 'data.txt' 'data.json --field words'; do
    # shellcheck disable=SC2086 # an option
    expect 0 "lines.${data%% *}" "$limbeck" influence text $data --max-length 24 --json
    # shellcheck disable=SC2086
    expect 0 "worth.${data%% *}" "$limbeck" eval text $data --max-length 24 --json
done
cmp lines.data.txt lines.data.json || fail "influence read other texts"
holds -s 'map([.. | .loss? // empty]) | (.[0] | length) >= 1 and .[0] == .[1]' worth.data.txt worth.data.json

say "shards and texts by weight: killed at any moment, the run goes on to the same bits"
sed 's/^datasets: .*/datasets: [{path: data.bin, weight: 1}, {path: rest.txt, weight: 3}]/; s/^max_steps: .*/max_steps: 120/' recipe.yaml >mixed.yaml
echo "save_steps: 10" >>mixed.yaml
expect 0 whole.log "$limbeck" train mixed.yaml -o whole
start broken.log "$limbeck" train mixed.yaml -o broken
await reached broken 30
murder "$job"
expect 0 resumed.log "$limbeck" train mixed.yaml -o broken --resume
same_student whole broken
sed 's/weight: 3/weight: 1/' mixed.yaml >other.yaml
expect 0 other.log "$limbeck" train other.yaml -o other
other_student whole other
expect 1 refused.log "$limbeck" train other.yaml -o broken --resume
said refused.log "datasets.1.weight: 3, here datasets.1.weight: 1"

say "a shard of another tokenizer"
printf '\377\377%.0s' {1..60} >large.bin
expect 1 large.log "$limbeck" train recipe.yaml -o large --set 'datasets=[{path: large.bin}]'
one_error large.log
said large.log "large.bin: id 0 is 65535, and the tokenizer has"

say "a table: a teacher, a student of it, and what the student is worth"
awk 'BEGIN { srand(3); print "length,width,label,height"
    for (i = 0; i < 400; i++) { k = int(3 * rand()); printf "%.3f,%.3f,%d,%.3f\n", k + rand(), rand() - k, k, rand() } }' >table.csv
cat >table.yaml <<END
student: {input_size: 3, hidden_sizes: [16], num_labels: 3}
datasets: [{path: table.csv, skip_samples: 100}]
eval_datasets: [{path: table.csv, max_samples: 100}]
loss_functions: [{function: cross_entropy}]
num_train_epochs: 30
learning_rate: 2.0e-2
output_dir: teacher
END
expect 0 teacher.log "$limbeck" train table.yaml
sed -e 's/\[16\]/[4]/; s/function: cross_entropy/function: kl, temperature: 2/; s/^output_dir: .*/output_dir: pupil/' table.yaml >pupil.yaml
echo 'teachers: [{name: t, url: "local:teacher/student"}]' >>pupil.yaml
expect 0 pupil.log "$limbeck" train pupil.yaml
expect 0 pupil.json "$limbeck" eval pupil table.csv --json
holds '[.. | .error_percent? // empty][0] < 20' pupil.json
sed -i '7s/,[0-2],/,oak,/' table.csv
expect 1 oak.log "$limbeck" train table.yaml -o oak
one_error oak.log
said oak.log 'table.csv:7: column label: "oak" is no class'

say "records that say how often they count: all once is no weight; others teach otherwise, killed or not, by any threads"
jq -cR '{prompt: .[:9], completion: .[9:], one: 1, often: (length % 4)}' data.txt >records.jsonl
sed 's/^datasets: .*/datasets: [{path: records.jsonl}]/; s/^max_steps: .*/max_steps: 60/' recipe.yaml >often.yaml
echo "save_steps: 10" >>often.yaml
expect 0 plain.log "$limbeck" train often.yaml -o plain
jq -c '.none = 0' records.jsonl >none.jsonl
expect 1 none.log "$limbeck" train often.yaml -o none --set datasets.0.path=none.jsonl --set datasets.0.weight_field=none
one_error none.log
said none.log "datasets: each of their " " rows has weight 0, so nothing would be learnt"
expect 0 once.log "$limbeck" train often.yaml -o once --set datasets.0.weight_field=one
same_student plain once
expect 0 often.log "$limbeck" train often.yaml -o often --set datasets.0.weight_field=often --set threads=1
other_student plain often
start half.log "$limbeck" train often.yaml -o half --set datasets.0.weight_field=often --set threads=3
await reached half 20
murder "$job"
expect 0 half.log "$limbeck" train often.yaml -o half --set datasets.0.weight_field=often --set threads=3 --resume
same_student often half
sed '7s/"often":[0-9]*/"often":-1/' records.jsonl >negative.jsonl
expect 1 negative.log "$limbeck" train often.yaml -o negative --set datasets.0.path=negative.jsonl --set datasets.0.weight_field=often
one_error negative.log
said negative.log "negative.jsonl:7: the line: often: -1 is no weight"
expect 1 text.log "$limbeck" train recipe.yaml -o none --set datasets.0.weight_field=often
said text.log "datasets.0: weight_field is for type: jsonl and csv"
