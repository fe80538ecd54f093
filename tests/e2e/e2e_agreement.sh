#!/bin/bash
# Evaluations that ask the teachers (eval_agreement): how often student and teacher find the same token likeliest, and
# KL(teacher, student), in training and by limbeck eval --teacher; what cannot be compared is left out and told.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"
command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }

make_teachers 60
host nouns nouns/student
host others others/student
distil_recipe distil.yaml
sed -i 's/^mixture: .*/mixture: mean_losses/; /hs_mse/d' distil.yaml
cat >>distil.yaml <<END
fp16_targets: false
eval_datasets:
  - {path: test.nouns.txt, tag: noun}
  - {path: test.others.txt, tag: other}
eval_steps: 10
END
asks=(--set eval_agreement=true)
evaluations() { # run folder
    jq -c 'select(.eval_loss) | del(.ts)' "$1/metrics.jsonl"
}

say "nothing that it does reaches the student; answers are cached as those of training are"
expect 0 plain.log "$limbeck" train distil.yaml -o plain
expect 0 first.log "$limbeck" train distil.yaml -o first "${asks[@]}" --set cache_dir=cache
same_student plain first
evaluations plain >plain.json
evaluations first >first.json
holds -s 'length == 4 and all(has("eval_agreement/nouns") | not)' plain.json
holds -n --slurpfile p plain.json --slurpfile f first.json '($p | length) == ($f | length) and all([$p, $f] | transpose[]; . as [$a, $b]
    | all($a | keys[]; $a[.] == $b[.]))'
holds -s 'all(.["eval_agreement/nouns"] > 0 and .["eval_agreement/nouns"] < 1 and .["eval_kl/others"] > 0
    and .["eval_agreement/nouns/noun"] != .["eval_agreement/nouns/other"] and .["eval_kl/others/other"] > 0)
    and .[-1]["eval_agreement/nouns/noun"] > .[0]["eval_agreement/nouns/noun"] and .[-1]["eval_kl/others"] < .[0]["eval_kl/others"]' first.json
said first.log "the likeliest is that of teacher nouns in"
expect 0 second.log "$limbeck" train distil.yaml -o second "${asks[@]}" --set cache_dir=cache
[ "$(done_number second.log teacher_requests)" -eq 0 ] || fail "held-out data were asked about again"
evaluations second | cmp - first.json || fail "cached answers came to something else"

say "killed and resumed: the same evaluations, and the same student"
start part.log "$limbeck" train distil.yaml -o part "${asks[@]}"
await reached part 23
murder "$job"
expect 0 again.log "$limbeck" train distil.yaml -o part "${asks[@]}" --resume
same_student plain part
evaluations part | cmp - first.json || fail "resumed, it came to something else"

say "a student that is the teacher agrees with it wholly"
expect 0 self.log "$limbeck" train distil.yaml -o self "${asks[@]}" --set 'student={model: nouns/student}' --set learning_rate=0 --set max_steps=1 \
    --set eval_steps=0
holds 'select(.eval_loss) | .["eval_agreement/nouns"] == 1 and (.["eval_kl/nouns"] | fabs) < 1e-5 and .["eval_agreement/others"] < 0.9
    and .["eval_kl/others"] > 0.1' self/metrics.jsonl

say "on data that are learnt from the same KL is the loss that training tells, by each lane; draws tell the likeliest alone"
same=(--set learning_rate=0 --set max_steps=1 --set eval_steps=0 --set per_device_train_batch_size=1
    --set gradient_accumulation_steps=40) # whole rows, each once
for key in datasets eval_datasets; do
    same+=(--set "$key=[{path: train.nouns.txt, tag: noun, max_tokens: 480}, {path: train.others.txt, tag: other, max_tokens: 480}]")
done
for lane in final_hidden logits topk samples; do
    expect 0 "$lane.log" "$limbeck" train distil.yaml -o "$lane" "${asks[@]}" "${same[@]}" --set "targets=$lane" --set loss_top_k=50
    holds -s --arg lane "$lane" '.[0] as $train | .[1] as $eval | all("nouns", "others"; if $lane == "samples" then $eval["eval_kl/" + .] == null
        else $train["teacher_loss/" + .] as $l | $l > 0.01 and ($eval["eval_kl/" + .] - $l | fabs) < 1e-5 * $l end)' "$lane/metrics.jsonl"
    holds -n --slurpfile a final_hidden/metrics.jsonl --slurpfile b "$lane/metrics.jsonl" 'all("", "/noun", "/other";
        $a[1]["eval_agreement/nouns" + .] > 0 and $a[1]["eval_agreement/nouns" + .] == $b[1]["eval_agreement/nouns" + .])'
done

say "limbeck eval says the same of the student, and of a temperature in training it knows nothing"
expect 0 warm.log "$limbeck" train distil.yaml -o warm "${asks[@]}" --set temperature=3 --set targets=topk --set loss_top_k=50
for lane in final_hidden topk; do
    expect 0 "eval.$lane.json" "$limbeck" eval warm noun=test.nouns.txt other=test.others.txt --json --teacher "${url[nouns]}#nouns" \
        --teacher "local:others/student" --targets "$lane" --top-k 50
done
holds --slurpfile m <(evaluations warm | tail -n 1) '.teachers | .[0].name == "nouns" and (.[0].all.agreement - $m[0]["eval_agreement/nouns"] | fabs) < 1e-6
    and (.[0].all.kl - $m[0]["eval_kl/nouns"] | fabs) < 1e-5 and (.[1].parts.other.kl - $m[0]["eval_kl/others/other"] | fabs) < 1e-5' eval.topk.json
holds --slurpfile k eval.topk.json '.teachers[0].all.kl > $k[0].teachers[0].all.kl and .teachers[0].all.agreement == $k[0].teachers[0].all.agreement' \
    eval.final_hidden.json
expect 0 eval.log "$limbeck" eval warm test.nouns.txt --teacher "${url[nouns]}"
said eval.log "beside teacher"
expect 2 usage.log "$limbeck" eval "${url[nouns]}" test.nouns.txt --teacher "${url[nouns]}"
expect 2 usage.log "$limbeck" eval warm test.nouns.txt --teacher "${url[nouns]}" --targets samples
for alone in --targets=topk --top-k=9; do
    expect 2 usage.log "$limbeck" eval warm test.nouns.txt "$alone"
    said usage.log "--targets and --top-k are what --teacher is asked for; there is none"
done

say "of a teacher that does not tell its width too; one whose head is another's is refused, in training as well"
retold untold nouns "del said['parameters']['hidden_size']"
expect 0 untold.json "$limbeck" eval warm test.nouns.txt --json --teacher "${url[untold]}"
expect 0 told.json "$limbeck" eval warm test.nouns.txt --json --teacher "${url[nouns]}"
holds --slurpfile t told.json '.teachers[0].all == $t[0].teachers[0].all' untold.json
one=(--set 'loss_functions=[{function: kl}]' --set eval_steps=0 --set max_steps=2)
expect 0 untold.log "$limbeck" train distil.yaml -o untold "${one[@]}" --set "teachers=[{name: nouns, url: '${url[untold]}'}]"
expect 0 told.log "$limbeck" train distil.yaml -o told "${one[@]}" --set "teachers=[{name: nouns, url: '${url[nouns]}'}]"
same_student told untold
retold unlike nouns "del said['parameters']['hidden_size']
[o['shape'].append(o['shape'].pop() // 2) for o in said['outputs'] if o['name'] == 'hidden_states.final']"
expect 1 unlike.log "$limbeck" eval warm test.nouns.txt --teacher "${url[unlike]}"
one_error unlike.log
said unlike.log "its final states have 24 numbers, its head reads 48"
expect 1 unlike.log "$limbeck" train distil.yaml -o unlike.head "${one[@]}" --set "teachers=[{name: nouns, url: '${url[unlike]}'}]"
one_error unlike.log
said unlike.log "its final states have 24 numbers, its head reads 48"

say "teachers of tags are asked about these"
expect 0 route.log "$limbeck" train distil.yaml -o route "${asks[@]}" --set mixture=route --set max_steps=2 --set eval_steps=0
holds 'select(.eval_loss) | .["eval_agreement/nouns"] == .["eval_agreement/nouns/noun"] and (has("eval_agreement/nouns/other") | not)' \
    route/metrics.jsonl

say "one that nothing is learnt from by distributions tells its likeliest, as one of more tokens does; one of other tokens is left out"
expect 0 apart.log "$limbeck" train distil.yaml -o apart "${asks[@]}" --set max_steps=2 --set eval_steps=0 \
    --set 'loss_functions=[{function: kl, teachers: [nouns]}, {function: hs_mse, teachers: [others]}]'
holds 'select(.eval_loss) | .["eval_agreement/others"] > 0 and (has("eval_kl/others") | not) and has("eval_kl/nouns")' apart/metrics.jsonl
host whole "$LB_SOURCE_ROOT/examples/wordnet/teachers/nouns"
expect 0 trim.log "$limbeck" tokenizer trim "$LB_SOURCE_ROOT/examples/wordnet/teachers/nouns" --corpus nouns.txt --size 280 --out small
mkdir gpt2
cp "$LB_SOURCE_ROOT/tests/golden/text/gpt2.json" gpt2/tokenizer.json
base_recipe | sed 's|^tokenizer: .*|tokenizer: gpt2|' >gpt2.yaml
cat >>gpt2.yaml <<END
datasets: [{path: nouns.txt}]
loss_functions: [{function: cross_entropy}]
output_dir: gpt2-teacher
END
expect 0 gpt2.log "$limbeck" train gpt2.yaml --set max_steps=2
expect 0 unlike.log "$limbeck" train distil.yaml -o unlike "${asks[@]}" --set max_steps=2 --set eval_steps=0 --set tokenizer=small --set mixture=mean_losses \
    --set "teachers=[{name: whole, url: '${url[whole]}'}, {name: gpt2, url: 'local:gpt2-teacher/student'}]" \
    --set 'loss_functions=[{function: kl, teachers: [whole]}, {function: alm, teachers: [gpt2]}]'
said unlike.log "agreement_left_out teacher=gpt2" "its tokens are not the student's"
holds 'select(.eval_loss) | .["eval_agreement/whole"] > 0 and (has("eval_kl/whole") | not) and (has("eval_agreement/gpt2") | not)' unlike/metrics.jsonl
expect 1 tokens.log "$limbeck" eval warm test.nouns.txt --teacher "local:gpt2-teacher/student"
one_error tokens.log
said tokens.log "has another tokenizer"

say "classes: of tables"
awk 'BEGIN { srand(5); print "a,b,label"; for (i = 0; i < 200; i++) { a = rand(); b = rand(); print a "," b "," (a > b) + (a > 0.7) } }' >points.csv
for kind in teacher student; do
    cat >$kind.yaml <<END
student: {model_type: limbeck_mlp, hidden_sizes: [16]}
datasets: [{path: points.csv}]
eval_datasets: [{path: points.csv}]
loss_functions: [{function: cross_entropy}]
max_steps: 60
learning_rate: 0.02
output_dir: points.$kind
END
    sed -i 's/hidden_sizes/input_size: 2, num_labels: 3, hidden_sizes/' $kind.yaml
done
expect 0 points.teacher.log "$limbeck" train teacher.yaml
host points points.teacher/student
sed -i 's/^loss_functions: .*/loss_functions: [{function: kl}]/' student.yaml
expect 0 points.student.log "$limbeck" train student.yaml --set "teachers=[{name: points, url: '${url[points]}'}]" "${asks[@]}" --set eval_steps=30
jq -s '[.[] | select(.eval_loss)]' points.student/metrics.jsonl >points.json
holds 'length == 2 and .[1]["eval_agreement/points"] > 0.8 and .[1]["eval_kl/points"] < .[0]["eval_kl/points"]' points.json
expect 0 points.eval.json "$limbeck" eval points.student points.csv --json --teacher "${url[points]}"
holds --slurpfile m points.json '.teachers[0].all | .compared == 200 and (.agreement - $m[0][1]["eval_agreement/points"] | fabs) < 1e-6
    and (.kl - $m[0][1]["eval_kl/points"] | fabs) < 1e-3' points.eval.json

say "a teacher that is lost then: on_lost_teacher"
expect 0 fill.log "$limbeck" train distil.yaml -o fill --set cache_dir=train-cache --set eval_steps=0 "${asks[@]}" \
    --set 'eval_datasets=[{path: test.nouns.txt, tag: noun}]' # the other half is not answered then
drop others
late=(--set cache_dir=train-cache --set give_up_after=1 --set teacher_timeout=1 --set eval_steps=0)
expect 0 lost.log "$limbeck" train distil.yaml -o lost "${asks[@]}" "${late[@]}" --set on_lost_teacher=renormalise
holds 'select(.eval_loss) | has("eval_agreement/nouns") and (has("eval_agreement/others") | not)' lost/metrics.jsonl
said lost.log "agreement_unanswered teacher=others samples="
same_student plain lost
expect 1 stopped.log "$limbeck" train distil.yaml -o stopped "${asks[@]}" "${late[@]}" --set on_lost_teacher=stop
one_error stopped.log
said stopped.log "teacher others has not answered" "saved step=40"
host others others/student
expect 0 stopped2.log "$limbeck" train distil.yaml -o stopped "${asks[@]}" --set cache_dir=train-cache --set eval_steps=0 --resume
same_student plain stopped
holds 'select(.eval_loss) | has("eval_agreement/others")' stopped/metrics.jsonl

say "refused"
mv distil.yaml recipe.yaml
train_refused "eval_agreement: compares teachers and student on eval_datasets; there are no eval_datasets" "${asks[@]}" --set eval_datasets=null --set eval_steps=0
train_refused "eval_agreement: compares teachers and student on eval_datasets; there are no teachers" "${asks[@]}" --set teachers=null \
    --set 'loss_functions=[{function: cross_entropy}]' --set mixture=mean_probs
