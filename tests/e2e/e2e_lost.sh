#!/bin/bash
# A teacher that dies in the middle of a run, and what the recipe's on_lost_teacher makes of it.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

# Starts a run and takes a teacher away at a step.
run_and_lose() { # run folder, teacher, step, option...
    local name=$1 teacher=$2 step=$3
    shift 3
    start "$name.log" "$limbeck" train distil.yaml --output-dir "$name" "$@"
    await reached "$name" "$step"
    drop "$teacher"
}

make_teachers 10
host nouns nouns/student
host others others/student
distil_recipe distil.yaml
echo "prefetch: 1" >>distil.yaml

say "undisturbed"
expect 0 run.log "$limbeck" train distil.yaml
never_said run.log teacher_lost

say "wait: it says so, and goes on when the teacher is back"
run_and_lose waited others 4
await has waited.log 'teacher_lost teacher=others'
said waited.log 'then="waiting"'
kill -0 "$job" || fail "it did not wait"
! reached waited 40 || fail "it went on without its teacher"
host others others/student
ends_with 0 "$job" waited.log
said waited.log "teacher_back teacher=others"
same_student run waited

say "wait: killed while it waits, resumed when both teachers are elsewhere"
run_and_lose moved nouns 12
await has moved.log 'teacher_lost teacher=nouns'
murder "$job"
port[nouns]=0
host nouns nouns/student
expect 0 moved2.log "$limbeck" train distil.yaml --output-dir moved --resume --set teachers.0.url="${url[nouns]}"
same_student run moved

say "stop: it ends with the reason, keeps its steps, and goes on later"
sed -i "s|\(name: nouns, url: \)\"[^\"]*\"|\1\"${url[nouns]}\"|" distil.yaml
run_and_lose stopped others 10 --set on_lost_teacher=stop --set teacher_timeout=1 --set give_up_after=1 --set save_steps=0
ends_with 1 "$job" stopped.log
one_error stopped.log
said stopped.log "teacher others has not answered" "on_lost_teacher: stop" "saved step="
steps=$(grep -c '"loss"' stopped/metrics.jsonl)
[ -d "stopped/checkpoint-$steps" ] || fail "$steps steps were made, and this is kept: $(ls stopped)"
host others others/student
expect 0 stopped2.log "$limbeck" train distil.yaml --output-dir stopped --resume
same_student run stopped

say "stop: at the start as well"
drop others
expect 1 absent.log "$limbeck" train distil.yaml --output-dir absent --set on_lost_teacher=stop --set teacher_timeout=1 --set give_up_after=1
one_error absent.log
said absent.log "teacher others" "${url[others]}" "no answer"

say "renormalise: the other teacher's weight becomes one"
host others others/student
run_and_lose renormalised others 4 --set on_lost_teacher=renormalise --set teacher_timeout=1 --set give_up_after=1
await has renormalised.log 'then="going on without it"'
alone() { # steps that one teacher taught
    [ "$(jq -s '[.[] | select(.["weight/others"] == 0)] | length' renormalised/metrics.jsonl)" -ge "$1" ]
}
await alone 3
ends_with 0 "$job" renormalised.log
holds -s '[.[] | select(.loss)] | (.[0:3] | all(.[]; .["weight/others"] > 0))
    and all(.[]; .["weight/nouns"] + .["weight/others"] | (. > 0.999 and . < 1.001))
    and (.[39]["weight/others"] == 0) and all(.[]; .loss > 0)' renormalised/metrics.jsonl
other_student run renormalised

say "both lost: nothing is left to learn from"
host others others/student
start both.log "$limbeck" train distil.yaml --output-dir both --set on_lost_teacher=renormalise \
    --set teacher_timeout=1 --set give_up_after=1 --set save_steps=0
await reached both 4
drop others
drop nouns
ends_with 1 "$job" both.log
one_error both.log
said both.log "all teachers are lost" "saved step="
