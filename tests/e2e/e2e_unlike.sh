#!/bin/bash
# Two teachers of unlike tokenizers teach one student: one by distributions over the vocabulary that it shares, the other
# by how likely it finds the same pieces of text (alm), over HTTP, from the cache, resumed; what does not go together is
# refused before anything is learnt.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"
golden=$LB_SOURCE_ROOT/tests/golden/text

# A SentencePiece vocabulary with a beginning of texts, and one of bytes without; the student has a third.
for kind in llama2 gpt2; do
    mkdir "$kind"
    cp "$golden/$kind.json" "$kind/tokenizer.json"
done
echo '{"bos_token": "<s>", "eos_token": "</s>"}' >llama2/tokenizer_config.json
echo '{"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}' >gpt2/tokenizer_config.json
text nouns 1500 1 >nouns.txt
text nouns 60 2 >test.txt
for kind in llama2 gpt2; do
    base_recipe | sed "s|^tokenizer: .*|tokenizer: $kind|; s|hidden_size: 32|hidden_size: 48|; s|^max_steps: .*|max_steps: 150|" \
        >"$kind.yaml"
    cat >>"$kind.yaml" <<END
datasets: [{path: nouns.txt}]
loss_functions: [{function: cross_entropy}]
max_length: 48
seed: 3
output_dir: $kind-teacher
END
    sed -i '/^max_length: 24$/d' "$kind.yaml"
    expect 0 "$kind.log" "$limbeck" train "$kind.yaml"
done
# One of the student's own vocabulary.
base_recipe >own.yaml
cat >>own.yaml <<END
datasets: [{path: nouns.txt}]
loss_functions: [{function: cross_entropy}]
seed: 4
output_dir: own-teacher
END
expect 0 own.log "$limbeck" train own.yaml
host llama2 llama2-teacher/student
host own own-teacher/student

say "alm alone: a student that sees no label but through the teacher's likelihoods comes to predict the text"
base_recipe | sed 's|^max_steps: .*|max_steps: 120|; s|^learning_rate: .*|learning_rate: 5.0e-3|' >alm.yaml
cat >>alm.yaml <<END
datasets: [{path: nouns.txt}]
eval_datasets: [{path: test.txt}]
eval_steps: 60
teachers: [{name: llama2, url: "${url[llama2]}"}]
loss_functions: [{function: alm}]
seed: 1
END
expect 0 alm.log "$limbeck" train alm.yaml --set output_dir=alm
said alm.log "unlike_tokenizer teacher=llama2" in_chunks= its_tokens_per_chunk= teacher_bits_per_byte=
jq -s '[.[] | select(.loss)]' alm/metrics.jsonl >alm.json
holds '.[0]["loss/alm"] > 1.05 * .[-1]["loss/alm"]' alm.json
holds 'all(.["in_chunks/llama2"] > 0.5 and .["tokens_per_chunk/llama2"] >= 1 and .["weight/llama2"] == 1)' alm.json
jq -s '[.[] | select(.eval_loss)]' alm/metrics.jsonl >alm-eval.json
expect 0 zero.log "$limbeck" train alm.yaml --set output_dir=zero --set max_steps=1 --set eval_steps=1 --set learning_rate=1e-9
jq -s '[.[] | select(.eval_loss)]' zero/metrics.jsonl >zero-eval.json
holds --slurpfile b zero-eval.json '.[-1].eval_perplexity < 0.1 * $b[0][0].eval_perplexity' alm-eval.json

say "its distributions where both have read the same text: sorted, and token by token as far as both have the same"
for loss in uld uld_hybrid; do
    expect 0 "$loss.log" "$limbeck" train alm.yaml --set output_dir=$loss --set "loss_functions=[{function: $loss}]" --set loss_top_k=40 \
        --set cache_dir=cache-uld
    said "$loss.log" "unlike_tokenizer teacher=llama2"
    jq -s '[.[] | select(.loss)]' $loss/metrics.jsonl >$loss.json
    holds --arg m "loss/$loss" '(.[-5:] | map(.[$m]) | add / 5) < 0.8 * .[0][$m]' $loss.json
done
said uld_hybrid.log teacher_requests=0 # both ask the same
expect 0 threads.log "$limbeck" train alm.yaml --set output_dir=threads --set 'loss_functions=[{function: uld_hybrid}]' --set loss_top_k=40 \
    --set cache_dir=cache-uld --set threads=3
same_student uld_hybrid threads
expect 1 alike.log "$limbeck" train alm.yaml --set output_dir=alike --set 'loss_functions=[{function: uld}]' \
    --set "teachers=[{name: own, url: '${url[own]}'}]"
one_error alike.log
said alike.log "teacher own: uld and uld_hybrid compare unlike vocabularies"

say "two ways at once: kl and states from the one, alm from two others; a daemon of our own among them"
base_recipe >both.yaml
cat >>both.yaml <<END
datasets: [{path: nouns.txt}]
teachers:
  - {name: own, url: "${url[own]}"}
  - {name: llama2, url: "${url[llama2]}"}
  - {name: gpt2, url: "local:gpt2-teacher/student"}
loss_functions:
  - {function: kl, teachers: [own]}
  - {function: hs_mse, normalize: true, teachers: [own]}
  - {function: alm, weight: 20, teachers: [llama2, gpt2]}
mixture: ca_mkd
seed: 1
save_steps: 5
END
expect 0 both.log "$limbeck" train both.yaml --set output_dir=both
jq -s '[.[] | select(.loss)]' both/metrics.jsonl >both.json
holds 'all(.["weight/own"] == 1 and (.["weight/llama2"] + .["weight/gpt2"] - 1 | fabs) < 1e-9 and .["loss/alm"] > 0)
    and (.[0]["loss/alm"] > .[-1]["loss/alm"]) and (.[0]["loss/kl"] > .[-1]["loss/kl"])' both.json

say "beside a teacher whose vocabulary is padded beyond its tokenizer"
base_recipe | sed "s|^tokenizer: .*|tokenizer: gpt2|; /^student:/,/^  tie/d" >padded.yaml
cat >>padded.yaml <<END
student: {model: own-teacher/student}
datasets: [{path: nouns.txt}]
loss_functions: [{function: cross_entropy}]
output_dir: padded
END
expect 0 pad.log "$limbeck" train padded.yaml
expect 0 beside.log "$limbeck" train both.yaml --set tokenizer=gpt2 --set loss_functions.2.teachers=[llama2] --set max_steps=5 \
    --set "teachers=[{name: own, url: local:padded/student}, {name: llama2, url: '${url[llama2]}'}]" --set output_dir=beside
said beside.log padded_vocabulary "unlike_tokenizer teacher=llama2"

say "the tokenizer that the student's was trimmed from: in its own tokens where alm is alone, else through the map"
expect 0 trim.json "$limbeck" tokenizer trim own-teacher/student --corpus nouns.txt --size 280 --out small --json
small() { # run folder, losses
    "$limbeck" train alm.yaml --set tokenizer=small --set "teachers.0={name: own, url: '${url[own]}'}" --set max_steps=10 \
        --set "loss_functions=$2" --set "output_dir=$1"
}
expect 0 small.log small small-alone '[{function: alm}]'
said small.log "unlike_tokenizer teacher=own"
never_said small.log trimmed_vocabulary
expect 0 map.log small small-map '[{function: alm, weight: 10}, {function: kl}]'
said map.log "trimmed_vocabulary teacher=own"
never_said map.log unlike_tokenizer
jq -s '[.[] | select(.loss)]' small-map/metrics.jsonl >small.json
holds 'all(.["loss/alm"] > 0) and all(has("in_chunks/own") | not)' small.json

say "the same bits from the cache, without the teachers, and after an interruption"
expect 0 fill.log "$limbeck" train both.yaml --set cache_dir=cache --set output_dir=filled
same_student both filled
start part.log "$limbeck" train both.yaml --set cache_dir=cache --set output_dir=part
await reached part 7
murder "$job"
drop llama2
drop own
mv gpt2-teacher gone
expect 0 resume.log "$limbeck" train both.yaml --set cache_dir=cache --set output_dir=part --resume
same_student both part
expect 0 cached.log "$limbeck" train both.yaml --set cache_dir=cache --set output_dir=cached
same_student both cached
for log in fill cached; do
    grep -o "unlike_tokenizer .*" $log.log >$log.told
    [ "$(grep -c teacher_bits_per_byte= $log.told)" -eq 2 ] || fail "$log: not told how the teachers find the text"
done
cmp fill.told cached.told || fail "something else about the tokenizers"
[ "$(done_number cached.log teacher_requests)" -eq 0 ] || fail "a cached run asked"
mv gone gpt2-teacher
host llama2 llama2-teacher/student
host own own-teacher/student

say "a teacher whose texts begin otherwise now is another teacher, though its weights and tokenizer are the same"
config=gpt2-teacher/student/tokenizer_config.json
cp $config kept.json
jq '.add_bos_token = true' kept.json >$config
expect 1 other.log "$limbeck" train both.yaml --set output_dir=part --resume
one_error other.log
said other.log "other teachers"
cp kept.json $config
expect 0 again.log "$limbeck" train both.yaml --set output_dir=part --resume

say "prompts and completions: what is asked does not count"
jq -cR '{prompt: .[:9], completion: .[9:]}' nouns.txt >pairs.jsonl
expect 0 pairs.log "$limbeck" train alm.yaml --set 'datasets=[{path: pairs.jsonl}]' --set output_dir=pairs --set max_steps=20
jq -s '[.[] | select(.eval_loss)]' pairs/metrics.jsonl >pairs.json
holds --slurpfile b zero-eval.json '.[-1].eval_perplexity < 0.5 * $b[0][0].eval_perplexity' pairs.json

say "conversations: each writes them by its own template; a teacher without one is refused, one that refuses some is told"
mkdir tok
cp "$tokenizer" tok/tokenizer.json
cat >tok/chat_template.jinja <<'END'
{%- for m in messages -%}
{{ m.role }}: {{ m.content }}{{ eos_token }}
{%- endfor -%}
{%- if add_generation_prompt %}assistant: {% endif -%}
END
head -n 300 nouns.txt | jq -cR '{messages: [{role: "user", content: .[:9]}, {role: "assistant", content: .[9:]}]}' >chats.jsonl
chats() { # run folder, option of train...
    local to=$1
    shift
    "$limbeck" train alm.yaml --set 'datasets=[{path: chats.jsonl}]' --set 'eval_datasets=[{path: chats.jsonl}]' --set tokenizer=tok \
        --set assistant_only_loss=true --set max_length=60 --set max_steps=20 --set eval_steps=20 --set "output_dir=$to" "$@"
}
expect 1 bare.log chats bare
one_error bare.log
said bare.log "teacher llama2" "no chat template"
cp -r llama2-teacher/student talks
jq '.chat_template = "{% for m in messages %}{{ bos_token }}[{{ m.role[0] }}] {{ m.content | trim }} {{ eos_token }}{% endfor %}"' \
    llama2-teacher/student/tokenizer_config.json >talks/tokenizer_config.json
host talks talks
expect 0 chats.log chats chats --set "teachers.0.url=${url[talks]}"
never_said chats.log other_chat_template not_read
jq -s '[.[] | select(.loss)]' chats/metrics.jsonl >chats.json
holds 'all(.["in_chunks/llama2"] > 0.2 and .["in_chunks/llama2"] < 1)' chats.json
{
    echo '{"messages": [{"role": "user", "content": "hm"}, {"role": "assistant", "content": "a bird"}]}'
    cat chats.jsonl
} >odd.jsonl
jq '.chat_template |= sub("{{ bos"; "{% if m.content == \"hm\" %}{{ raise_exception(\"not this\") }}{% endif %}{{ bos")' \
    talks/tokenizer_config.json >config.json
drop talks
cp config.json talks/tokenizer_config.json
host talks talks
expect 0 odd.log chats odd --set 'datasets=[{path: odd.jsonl}]' --set "teachers.0.url=${url[talks]}"
said odd.log "not_read teacher=llama2 rows=1 of=256" "not this"

say "refused, each in one line: losses token by token from it, by default and by name; nothing is learnt before"
refused() { # name, what the error says, option of train...
    local name=$1 says=$2
    shift 2
    expect 1 "$name.log" "$limbeck" train both.yaml --set "output_dir=$name" "$@"
    one_error "$name.log"
    said "$name.log" "$says"
    [ ! -e "$name/metrics.jsonl" ] || fail "$name learnt something"
}
refused no1 "loss_functions.0 (kl) compares token by token" --set 'loss_functions=[{function: kl}]'
said no1.log "teacher llama2 has another tokenizer" "limbeck tokenizer trim" "alm" "teachers: [llama2]"
refused no2 "loss_functions.1 (hs_mse) compares token by token" --set 'loss_functions.1.teachers=[own, llama2]'
refused no3 "no teacher is called" --set 'loss_functions.0.teachers=[nobody]'
refused no4 "no loss learns from gpt2" --set 'loss_functions.2.teachers=[llama2]'
refused no5 "does not read it" --set 'loss_functions.2.temperature=2'
tr '\n' ' ' <nouns.txt >long.txt
refused no7 "hold no piece of the first" --set max_length=1 --set 'datasets=[{path: long.txt, max_tokens: 60}]'
expect 1 images.log "$limbeck" train both.yaml --set output_dir=no6 --set whole_texts=true
said images.log "loss_functions.2: alm compares how likely texts are" "encoders and classifiers"

mkdir mute
cp llama2-teacher/student/{config.json,model.safetensors} mute/
host mute mute
expect 1 mute.log "$limbeck" train alm.yaml --set "teachers.0.url=${url[mute]}" --set output_dir=no8
one_error mute.log
said mute.log "no tokenizer is served with it"

say "scored side by side: only models that read the same ids"
host gpt2 gpt2-teacher/student
expect 1 eval.log "$limbeck" eval "${url[llama2]}" "${url[gpt2]}" test.txt
one_error eval.log
said eval.log "another tokenizer" "one by one"
