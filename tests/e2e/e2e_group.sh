#!/bin/bash
# Ten trainers started together ask two daemons about the same texts: each text is computed once.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

counted() { # teacher, metric: its sum over models
    curl -sf "${url[$1]}/metrics" | awk -v name="limbeckd_$2_total{" 'index($0, name) == 1 { sum += $NF } END { print sum + 0 }'
}

make_teachers 5
host nouns nouns/student
host others others/student
distil_recipe distil.yaml
expect 0 run.log "$limbeck" train distil.yaml
declare -A different=()
for teacher in nouns others; do
    different[$teacher]=$(counted "$teacher" tokens)
    [ "${different[$teacher]}" -gt 100 ] || fail "$teacher has computed ${different[$teacher]} tokens"
    drop "$teacher"
    host "$teacher" "$teacher/student"
done

say "ten at once, three of which ask other things: nothing is computed twice"
declare -A of=()
for i in 1 2 3 4 5 6 7 8 9 10; do
    how=targets=final_hidden
    [ "$i" -gt 7 ] && how=targets=topk
    start "$i.log" "$limbeck" --threads 1 train distil.yaml --output-dir "$i" --set "$how"
    of[$i]=$job
done
for i in "${!of[@]}"; do
    ends_with 0 "${of[$i]}" "$i.log"
    never_said "$i.log" " warn "
done
for teacher in nouns others; do
    computed=$(counted "$teacher" tokens)
    asked=$(counted "$teacher" asked_tokens)
    say "$teacher: asked $asked tokens, ${different[$teacher]} different ones, computed $computed"
    [ "$computed" -eq "${different[$teacher]}" ] || fail "$teacher has computed $computed tokens of ${different[$teacher]} different ones"
    [ "$asked" -ge $((10 * computed)) ] || fail "$teacher was asked $asked tokens by ten"
done

say "and students are what they are alone"
for i in 1 2 3 4 5 6 7; do
    same_student "$i" run
done
same_student 8 9
