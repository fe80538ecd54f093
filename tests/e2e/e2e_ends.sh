#!/bin/bash
# Tokens that begin and end texts: rows, evaluation, generation and what is exported agree on them; what the student was
# given comes out again; a teacher that misses its first token is noticed.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

say "three tokenizers of one vocabulary: without bos, with one that nobody puts, with one that texts begin with"
bos=$(jq '[.model.vocab[], .added_tokens[].id] | max + 1' "$tokenizer")
mkdir knows begins
jq --argjson id "$bos" '.added_tokens += [{id: $id, content: "<bos>", single_word: false, lstrip: false, rstrip: false,
    normalized: false, special: true}, {id: ($id + 1), content: "<turn>", single_word: false, lstrip: false, rstrip: false,
    normalized: false, special: true}]' "$tokenizer" >knows/tokenizer.json
jq --argjson id "$bos" '.post_processor = {type: "TemplateProcessing", single: [{SpecialToken: {id: "<bos>", type_id: 0}},
    {Sequence: {id: "A", type_id: 0}}], pair: [{Sequence: {id: "A", type_id: 0}}, {Sequence: {id: "B", type_id: 1}}],
    special_tokens: {"<bos>": {id: "<bos>", ids: [$id], tokens: ["<bos>"]}}}' knows/tokenizer.json >begins/tokenizer.json
echo '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<turn>", "bos_token": "<bos>", "pad_token": "<eos>",
    "model_max_length": 48, "chat_template": "{{ messages[0].content }}"}' >begins/tokenizer_config.json
echo '{"eos_token": "<turn>", "bos_token": "<bos>", "pad_token": "<eos>"}' >begins/special_tokens_map.json
echo "{\"eos_token_id\": [$((bos + 1)), 0], \"temperature\": 0.7}" >begins/generation_config.json
cp begins/tokenizer_config.json knows/

text nouns 800 1 >nouns.txt
text nouns 40 2 >test.txt
base_recipe | sed '/^tokenizer:/d' >base.yaml
cat base.yaml - >teacher.yaml <<END
tokenizer: begins
datasets: [{path: nouns.txt}]
eval_datasets: [{path: test.txt}]
loss_functions: [{function: cross_entropy}]
output_dir: teacher
END
expect 0 teacher.log "$limbeck" train teacher.yaml --set max_steps=200

say "what was given is there, byte for byte, and config.json has the same tokens"
for file in tokenizer.json tokenizer_config.json special_tokens_map.json generation_config.json; do
    cmp "begins/$file" "teacher/student/$file" || fail "$file was changed"
done
holds --argjson bos "$bos" '.bos_token_id == $bos and .eos_token_id == $bos + 1 and .pad_token_id == 0' teacher/student/config.json
expect 0 export.log "$limbeck" export teacher -f hf -o exported
cmp begins/tokenizer_config.json exported/tokenizer_config.json
cmp begins/generation_config.json exported/generation_config.json

say "a card says what it is; it goes along, and one that somebody changed is not replaced"
said teacher/student/README.md "library_name: transformers" "cross_entropy" "perplexity" "AutoModelForCausalLM"
cmp teacher/student/README.md exported/README.md
expect 0 export2.log "$limbeck" export teacher -f hf -o exported
echo "and a word of mine" >>exported/README.md
expect 1 export3.log "$limbeck" export teacher -f hf -o exported
one_error export3.log
said export3.log README.md
said exported/README.md "a word of mine"
expect 0 export4.log "$limbeck" export exported -f hf -o again
said again/README.md "written by Limbeck" "AutoModelForCausalLM"
never_said again/README.md "a word of mine"

say "the run's own evaluation is that of eval: labels are the text's, each line's end one of them"
expect 0 eval.json "$limbeck" eval teacher test.txt --json
expect 0 again.json "$limbeck" eval exported test.txt --json --max-length 24
jq -e --slurpfile m <(grep eval_loss teacher/metrics.jsonl | tail -n 1) \
    '(.all.loss - $m[0].eval_loss) | fabs < 1e-5' eval.json >/dev/null || fail "the run evaluated otherwise"
[ "$(jq .all.bytes eval.json)" -eq "$(wc -c <test.txt)" ] || fail "other bytes than the text's were counted"
holds --slurpfile a eval.json '.all.loss == $a[0].all.loss and .all.tokens == $a[0].all.tokens' again.json
tokens=$("$limbeck" tokenize --count begins <test.txt)
[ "$(jq .all.tokens eval.json)" -eq $((tokens + $(wc -l <test.txt))) ] || fail "other tokens than the text's were counted"
expect 0 written.json "$limbeck" generate teacher --prompt "a small" -t 0 -n 60 --json
holds '.finish_reason == "stop"' written.json
[ "$(jq .prompt_tokens written.json)" -eq "$("$limbeck" tokenize --count --special begins "a small")" ]
# A NUL is a character of a text; where there is no room for more, that is the reason.
cp -r begins nul
jq '.decoder = {type: "Sequence", decoders: [.decoder, {type: "Replace", pattern: {String: " "}, content: "\u0000"}]}' \
    begins/tokenizer.json >nul/tokenizer.json
expect 0 nul.json "$limbeck" generate teacher --tokenizer nul --prompt "a small" -t 0 -n 60 --json
holds --slurpfile a written.json '.text | contains("\u0000") and (split("\u0000") | join(" ")) == $a[0].text' nul.json
most=$(jq .max_position_embeddings teacher/student/config.json)
expect 0 full.json "$limbeck" generate teacher --prompt "a small" -t 3 -n 1000 --json
holds --argjson most "$most" '.finish_reason == if .prompt_tokens + .completion_tokens == $most then "length" else "stop" end' full.json

say "hosted, it is scored alike, and tells what its tokenizer was given with"
host teacher teacher/student
curl -sf "${url[teacher]}/v2/models/teacher/tokenizer_config" | cmp - begins/tokenizer_config.json
cp -r teacher/student jinja
echo "{{ bos_token }}" >jinja/chat_template.jinja
host jinja jinja
holds --arg chat "{{ bos_token }}
" '.chat_template == $chat and .eos_token == "<turn>"' <(curl -sf "${url[jinja]}/v2/models/jinja/tokenizer_config")
expect 0 gguf.log "$limbeck" export jinja -f gguf -o jinja.gguf
host file jinja.gguf
holds --arg chat "{{ bos_token }}
" '.chat_template == $chat and .eos_token == "<turn>" and .bos_token == "<bos>" and .pad_token == "<eos>"' \
    <(curl -sf "${url[file]}/v2/models/file/tokenizer_config")
expect 0 back.log "$limbeck" export jinja.gguf -f hf -o back
holds --arg chat "{{ bos_token }}
" '.chat_template == $chat and .eos_token == "<turn>" and .bos_token == "<bos>" and .pad_token == "<eos>"' \
    back/tokenizer_config.json
rm jinja/tokenizer_config.json jinja/chat_template.jinja
host without jinja
[ "$(curl -s -o none.json -w '%{http_code}' "${url[without]}/v2/models/without/tokenizer_config")" = 404 ]
said none.json "no tokenizer_config.json"
expect 0 hosted.json "$limbeck" eval "${url[teacher]}" test.txt --json --max-length 24
holds --slurpfile a eval.json '(.models[0].all.loss - $a[0].all.loss | fabs) < 1e-4 and
    .models[0].all.tokens == $a[0].all.tokens' hosted.json

say "rows that lack the teacher's first token: one line says so; with it, or with the recipe's word, none does"
sed -i "s/^max_steps.*/max_steps: 3/" base.yaml
cat base.yaml - >student.yaml <<END
datasets: [{path: test.txt}]
teachers: [{name: t, url: "${url[teacher]}"}]
loss_functions: [{function: hs_mse}]
output_dir: run
END
expect 0 without.log "$limbeck" train student.yaml --set add_bos_token=false --set tokenizer=begins -o without
[ "$(grep -c teacher_expects_bos without.log)" -eq 1 ] || fail "no line, or more, about bos"
said without.log "teacher=t" "<bos>" "add_bos_token: true"
expect 0 with.log "$limbeck" train student.yaml --set tokenizer=begins -o with
never_said with.log teacher_expects_bos
[ "$("$limbeck" tokenize --special --json without/student a)" = "$("$limbeck" tokenize --json begins a)" ] ||
    fail "the student's own tokenizer begins texts with what it never read"
cmp begins/tokenizer.json with/student/tokenizer.json
said with/student/README.md "| t | \`$(jq -r '.versions[0]' <(curl -s "${url[teacher]}/v2/models/teacher"))\` |" hs_mse

say "the recipe's word is as good as a template, also to what is exported"
expect 0 says.log "$limbeck" train teacher.yaml --set max_steps=3 -o says
expect 0 put.log "$limbeck" train teacher.yaml --set max_steps=3 --set add_bos_token=true --set tokenizer=knows -o put
[ "$("$limbeck" tokenize --special --json put/student a)" = "$("$limbeck" tokenize --special --json begins a)" ] ||
    fail "the student's own tokenizer does not begin texts as its rows did"
cmp says/student/model.safetensors put/student/model.safetensors
expect 1 unknown.log "$limbeck" train student.yaml --set add_bos_token=true --set tokenizer="$tokenizer" -o none
one_error unknown.log
said unknown.log "--set add_bos_token" bos_token

say "a tokenizer with more tokens than the model has rows is refused; one with fewer is not, and generates its own only"
expect 0 small.log "$limbeck" train teacher.yaml --set tokenizer="$tokenizer" --set max_steps=2 -o small
expect 1 larger.log "$limbeck" generate small --prompt a --tokenizer begins
one_error larger.log
said larger.log "vocabulary"
expect 0 padded.json "$limbeck" generate teacher --prompt "a small" --tokenizer "$tokenizer" -n 30 --json

say "a teacher whose vocabulary is padded beyond its tokenizer teaches students that are padded alike"
cat base.yaml - >padded.yaml <<END
tokenizer: $tokenizer
datasets: [{path: test.txt}]
loss_functions: [{function: cross_entropy}]
output_dir: padded
END
sed -i '/^student:/,/^  tie/d' padded.yaml
echo "student: {model: teacher/student}" >>padded.yaml
expect 0 pad.log "$limbeck" train padded.yaml
expect 0 pad.json "$limbeck" eval padded test.txt --json
host padded padded/student
for lane in final_hidden topk logits; do
    expect 0 "$lane.log" "$limbeck" train student.yaml --set tokenizer="$tokenizer" --set "teachers.0.url=${url[padded]}" \
        --set loss_functions.0.function=kl --set targets=$lane -o "$lane"
    [ "$(grep -c padded_vocabulary $lane.log)" -eq 1 ] || fail "no line, or more, about the padding"
    holds --argjson v $((bos + 2)) '.vocab_size == $v' "$lane/student/config.json"
done

sed 's/url: [^,}]*/&, protocol: vllm, head: padded\/student/' student.yaml >vllm.yaml
for lane in final_hidden topk; do # by the head, also where the server does not tell its tokenizer
    expect 0 "$lane.log" "$limbeck" train vllm.yaml --set tokenizer="$tokenizer" --set "teachers.0.url=${url[padded]}" \
        --set loss_functions.0.function=kl --set targets=$lane --set loss_top_k=20 -o "vllm-$lane"
    [ "$(grep -c padded_vocabulary $lane.log)" -eq 1 ] || fail "no line, or more, about the padding"
    holds --argjson v $((bos + 2)) '.vocab_size == $v' "vllm-$lane/student/config.json"
done

say "the first token is asked about once, told every time: beside what a cache holds of others, and without the teacher"
expect 0 fill.log "$limbeck" train student.yaml --set tokenizer=begins --set cache_dir=cache -o fill
never_said fill.log teacher_expects_bos
expect 0 ask.log "$limbeck" train student.yaml --set add_bos_token=false --set tokenizer=begins --set cache_dir=cache -o ask
drop teacher
expect 0 gone.log "$limbeck" train student.yaml --set add_bos_token=false --set tokenizer=begins --set cache_dir=cache -o gone
for log in without ask gone; do
    grep -o "teacher_expects_bos .*" $log.log >$log.told || fail "$log: nothing about bos"
    cmp without.told $log.told || fail "$log: something else about bos"
done
