#!/bin/bash
# Several teachers, one student: each mixture by each lane that tells what it weighs by, resumed to the same bits; random
# teachers are asked alone; a bad teacher among the good ones.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

make_teachers 120
# One that learnt its words backwards: sure of itself, and wrong.
awk '{ for (i = NF; i > 0; i--) printf "%s%s", $i, (i > 1 ? " " : "\n") }' nouns.txt others.txt >bad.txt
sed 's/nouns/bad/g' nouns.yaml >bad.yaml
expect 0 bad.train.log "$limbeck" train bad.yaml --set max_steps=120 --set student.hidden_size=48
host nouns nouns/student
host others others/student
host bad bad/student
distil_recipe distil.yaml
sed -i '/hs_mse/d' distil.yaml
cat >>distil.yaml <<END
eval_datasets:
  - {path: test.nouns.txt, tag: noun}
  - {path: test.others.txt, tag: other}
cache_dir: cache
END

mixtures=(mean_losses ca_mkd entropy dynamic 'dynamic --set mixture_by=entropy' 'dynamic --set mixture_by=max_prob' select
    'select --set mixture_by=max_prob' aekd)
n=0
say "each mixture by each lane"
for mixture in "${mixtures[@]}" 'entropy --set mixture_per=token' 'aekd --set mixture_per=token'; do
    n=$((n + 1))
    for lane in final_hidden logits topk; do
        # shellcheck disable=SC2086 # options
        expect 0 "lane$n.$lane.log" "$limbeck" train distil.yaml -o "lane$n.$lane" --set max_steps=3 --set "targets=$lane" --set fp16_targets=false \
            --set loss_top_k=200 --set eval_steps=0 --set mixture=$mixture
    done
    # Of some 290 tokens 200 are listed: near, not equal.
    holds -n --slurpfile a "lane$n.final_hidden/metrics.jsonl" --slurpfile b "lane$n.logits/metrics.jsonl" --slurpfile c "lane$n.topk/metrics.jsonl" '
        def of(m): [m[] | select(.loss)]; def apart(m; n; key): [of($a)[:n], of(m)[:n]] | transpose | map((.[0][key] - .[1][key]) | fabs) | max;
        (of($a) | length) == 3 and apart($b; 3; "loss") < 1e-4 and apart($b; 3; "weight/nouns") < 1e-4
        and apart($c; 1; "loss") < 0.02 and apart($c; 1; "weight/nouns") < 0.02
        and all(of($a)[]; (.["weight/nouns"] + .["weight/others"] - 1 | fabs) < 1e-6 and .["teacher_loss/nouns"] > 0
            and .["teacher_accuracy/others"] > 0 and .["teacher_agreement/nouns"] == .["teacher_agreement/others"])'
done
expect 1 draws.log "$limbeck" train distil.yaml -o draws --set targets=samples --set mixture=entropy
one_error draws.log
said draws.log "entropy weighs by the entropy of each teacher, which draws (targets: samples) do not tell"

say "states weighed by what the teachers' heads make of the student's"
states=(--set mixture=ca_mkd --set mixture_states=student --set max_steps=3 --set eval_steps=0 --set fp16_targets=false)
for lane in final_hidden logits topk; do
    expect 0 "states.$lane.log" "$limbeck" train distil.yaml -o "states.$lane" "${states[@]}" --set "targets=$lane" --set loss_top_k=200 \
        --set 'loss_functions=[{function: hs_mse}, {function: kl, weight: 0}]'
done
expect 0 by_answers.log "$limbeck" train distil.yaml -o by_answers "${states[@]}" --set mixture_states=teacher --set 'loss_functions=[{function: hs_mse}]'
holds -n --slurpfile a states.final_hidden/metrics.jsonl --slurpfile b states.logits/metrics.jsonl --slurpfile c states.topk/metrics.jsonl \
    --slurpfile d by_answers/metrics.jsonl '[$a, $b, $c, $d] | map(map(.["loss/hs_mse"] // empty)) | transpose | length == 3
        and all((.[0:3] | max - min) < 1e-4 * .[0]) and any((.[3] - .[0] | fabs) > 1e-4 * .[0])'
expect 1 no_states.log "$limbeck" train distil.yaml -o no_states "${states[@]}"
one_error no_states.log
said no_states.log "mixture_states: student weighs losses between final states"

say "killed and resumed, with weights that move"
for mixture in random aekd 'dynamic --set mixture_by=entropy'; do
    rm -rf whole part
    options=(--set cache_dir=null --set save_steps=7 --set gradient_accumulation_steps=2 --set teachers.0.anneal=linear --set teachers.0.weight_end=0.25)
    # shellcheck disable=SC2206 # options
    options+=(--set mixture=$mixture)
    expect 0 whole.log "$limbeck" train distil.yaml -o whole "${options[@]}"
    start part.log "$limbeck" train distil.yaml -o part "${options[@]}"
    await reached part 11
    murder "$job"
    expect 0 again.log "$limbeck" train distil.yaml -o part "${options[@]}" --resume
    same_student whole part
    holds -s '[.[] | select(.loss)] | .[0:8] as $first | .[32:40] as $last | length == 40
        and ($first | map(.["weight/nouns"]) | add) > ($last | map(.["weight/nouns"]) | add)' whole/metrics.jsonl
done

say "random teachers are asked alone (equal samples near each other are asked about once, so that it is not half)"
for mixture in random mean_losses; do
    expect 0 "asked.$mixture.log" "$limbeck" train distil.yaml -o "asked.$mixture" --set "mixture=$mixture" --set cache_dir=null
done
some=$(done_number asked.random.log tokens_answered)
all=$(done_number asked.mean_losses.log tokens_answered)
[ $((some * 10)) -lt $((all * 6)) ] || fail "random teachers answered $some tokens, all $all"

say "a bad teacher among good ones"
perplexity() { # name, options...
    local name=$1
    shift
    expect 0 "$name.log" "$limbeck" train distil.yaml -o "$name" --set max_steps=60 "$@"
    jq -s 'map(.eval_perplexity_balanced // empty) | last' "$name/metrics.jsonl"
}
three=(--set "teachers=[{name: nouns, url: '${url[nouns]}'}, {name: others, url: '${url[others]}'}, {name: bad, url: '${url[bad]}'}]")
good=$(perplexity good --set mixture=mean_losses)
mean=$(perplexity mean "${three[@]}" --set mixture=mean_losses)
seen=()
for mixture in ca_mkd dynamic select; do
    seen+=("$(perplexity "bad.$mixture" "${three[@]}" --set "mixture=$mixture")")
done
echo "held-out perplexity: $good of two good teachers, $mean with a bad one by mean_losses, ${seen[*]} by ca_mkd, dynamic, select"
jq -en --argjson good "$good" --argjson mean "$mean" --argjson ca "${seen[0]}" --argjson dynamic "${seen[1]}" --argjson select "${seen[2]}" '
    $mean > 1.5 * $good and $ca < 0.85 * $mean and $dynamic < $good and $select < $good' >/dev/null || fail "the bad teacher was followed"
