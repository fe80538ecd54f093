#!/bin/bash
# A student with a small part of its teacher's vocabulary: trimmed from the teacher's tokenizer, it learns over HTTP from
# the teacher's answers cut to what it has, in each lane the same; what does not belong together is refused.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"
nouns=$LB_SOURCE_ROOT/examples/wordnet/teachers/nouns

text nouns 800 1 >nouns.txt
text nouns 40 2 >test.txt

say "a small tokenizer: the ids rise, any text is read, the map says what it was made of"
expect 0 trim.json "$limbeck" tokenizer trim "$nouns" --corpus nouns.txt --size 280 --out small --json
holds '.tokens == 280 and .tokens_before == 2048 and .growth > 0' trim.json
holds '.kept_ids | length == 280 and . == (sort | unique)' small/vocab_map.json
expect 0 ids.json "$limbeck" tokenize small --json $'z\xc3\xa9bra \xf0\x9f\x99\x82 nouns'
holds '.ids | length > 9' ids.json
expect 0 again.json "$limbeck" tokenizer trim "$nouns" --corpus nouns.txt --size 280 --out small --json
touch small/mine
expect 1 mine.log "$limbeck" tokenizer trim "$nouns" --corpus nouns.txt --size 280 --out small
one_error mine.log
said mine.log "small holds mine"
rm small/mine
expect 1 few.log "$limbeck" tokenizer trim "$nouns" --corpus nouns.txt --size 100 --out few
said few.log "100 tokens are too few"
[ ! -e few ] || fail "a folder was made for nothing"
expect 2 usage.log "$limbeck" tokenizer trim "$nouns" --size 280 --out few

say "a GGUF's: all special tokens that it names stay named"
expect 0 gguf.log "$limbeck" tokenizer trim "$LB_SOURCE_ROOT/tests/golden/gguf_vocab/t5.gguf" --corpus test.txt --size 280 \
    --out gguf
holds '.eos_token == "</s>" and .unk_token == "<unk>" and .pad_token == "<pad>"' gguf/tokenizer_config.json

say "a student learns: the loss falls, what is left out is told"
host nouns "$nouns"
base_recipe | sed '/^tokenizer:/d' >base.yaml
cat base.yaml - >student.yaml <<END
tokenizer: small
datasets: [{path: nouns.txt}]
eval_datasets: [{path: test.txt}]
teachers: [{name: nouns, url: "${url[nouns]}"}]
loss_functions: [{function: kl}, {function: hs_mse, normalize: true}]
targets: final_hidden
fp16_targets: false
END
expect 0 final.log "$limbeck" train student.yaml --set output_dir=final
said final.log trimmed_vocabulary "tokens=280 of=2048" other_ids= teacher_bits_per_byte= in_its_own_ids=
jq -s '[.[] | select(.loss)]' final/metrics.jsonl >final.json
holds '(.[0]["loss/kl"] > 1.2 * .[-1]["loss/kl"]) and all(.["tail_mass/nouns"] > 0 and .["tail_mass/nouns"] < 1)' final.json
holds '.vocab_size == 280' final/student/config.json
cmp small/tokenizer.json final/student/tokenizer.json

say "the other lanes come to the same"
for lane in topk logits; do
    expect 0 $lane.log "$limbeck" train student.yaml --set targets=$lane --set loss_top_k=2048 --set output_dir=$lane
    jq -s '[.[] | select(.loss)]' $lane/metrics.jsonl >$lane.json
    holds --slurpfile b $lane.json '[., $b[0]] | transpose | all((.[0].loss - .[1].loss | fabs) < 1e-3 * .[0].loss
        and (.[0]["tail_mass/nouns"] - .[1]["tail_mass/nouns"] | fabs) < 1e-4)' final.json
done

say "cached answers are the same answers; a short list of them will do"
expect 0 fill.log "$limbeck" train student.yaml --set cache_dir=cache --set output_dir=filled
expect 0 cached.log "$limbeck" train student.yaml --set cache_dir=cache --set output_dir=cached
same_student final filled
same_student final cached
for log in final fill cached; do
    grep -o "trimmed_vocabulary .*" $log.log >$log.told
    cmp final.told $log.told || fail "$log: something else about the vocabulary"
done
[ "$(done_number cached.log teacher_requests)" -eq 0 ] || fail "a cached run asked"
say "the student's folder says what it was trimmed from: it learns further from the same teacher"
cmp small/vocab_map.json final/student/vocab_map.json || fail "the student lost its map"
sed '/^tokenizer:/d' student.yaml >further.yaml
cp -r small begun # what is put around texts is another fingerprint's
jq '.bos_token = "<eos>"' small/tokenizer_config.json >begun/tokenizer_config.json
for bos in true false; do
    expect 0 first-$bos.log "$limbeck" train student.yaml --set tokenizer=begun --set add_bos_token=$bos --set output_dir=first-$bos
    expect 0 further-$bos.log "$limbeck" train further.yaml --set "student={model: first-$bos/student}" --set output_dir=further-$bos
    said further-$bos.log trimmed_vocabulary
done
expect 0 short.log "$limbeck" train student.yaml --set targets=topk --set loss_top_k=16 --set output_dir=short

say "what the student is, a daemon hosts: then its tokenizer is the teacher's own"
expect 0 eval.json "$limbeck" eval final test.txt --json
host again final/student
expect 0 pupil.log "$limbeck" train student.yaml --set "teachers.0.url=${url[again]}" --set output_dir=pupil
never_said pupil.log trimmed_vocabulary

say "refused: another tokenizer without a map, a map of another, one that is not the tokenizer's, another temperature"
mkdir other
cp small/tokenizer.json other/
expect 1 other.log "$limbeck" train student.yaml --set tokenizer=other --set output_dir=no1
one_error other.log
said other.log "another tokenizer" "limbeck tokenizer trim"
jq '.tokenizer_fingerprint |= gsub("[0-9]"; "a")' small/vocab_map.json >other/vocab_map.json
expect 1 map.log "$limbeck" train student.yaml --set tokenizer=other --set output_dir=no2
one_error map.log
said map.log "trimmed from"
cp small/vocab_map.json other/
cp "$nouns/tokenizer.json" other/
expect 1 whole.log "$limbeck" train student.yaml --set tokenizer=other --set output_dir=no3
one_error whole.log
said whole.log "made for another tokenizer"
expect 1 heat.log "$limbeck" train student.yaml --set loss_functions.0.temperature=2 --set output_dir=no4
one_error heat.log
said heat.log "loss_functions.0.temperature"
