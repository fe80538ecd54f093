#!/bin/bash
# The internals of a larger model into a smaller one, over HTTP: which layers, and every loss on them.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

text nouns 300 1 >texts.txt
base_recipe | sed 's/^max_steps: .*/max_steps: 3/' >base.yaml
cat base.yaml - >teacher.yaml <<END
datasets: [{path: texts.txt}]
loss_functions: [{function: cross_entropy}]
output_dir: teacher
END
expect 0 teacher.log "$limbeck" train teacher.yaml --set max_steps=2 --set student.num_hidden_layers=6 --set student.hidden_size=24
host deep teacher/student
cat base.yaml - >recipe.yaml <<END
datasets: [{path: texts.txt}]
teachers: [{name: T, url: "${url[deep]}"}]
loss_functions: [{function: kl}]
output_dir: run
END

say "layers by their numbers"
expect 0 run.log "$limbeck" train recipe.yaml --set student.num_hidden_layers=3 --set 'loss_functions=[
    {function: hs_mse, layer_mapping: uniform}, {function: hs_cosine, layer_mapping: skip},
    {function: attention_mse, layer_mapping: last}, {function: kl}]'
said run.log "loss=hs_mse teacher=T student:teacher=0:0,1:2,2:4,3:6" "loss=hs_cosine teacher=T student:teacher=1:2,2:4" \
    "loss=attention_mse teacher=T student:teacher=0:3,1:4"
said run/recipe.yaml "layer_mapping: uniform" "layer_mapping: skip" "layer_mapping: last"
expect 0 listed.log "$limbeck" train recipe.yaml -o listed --set student.num_hidden_layers=3 --set 'loss_functions=[
    {function: hs_mse, layer_mapping: [{student: 0, teacher: 0}, {student: 1, teacher: 2}, {student: 2, teacher: 4}, {student: 3, teacher: 6}]},
    {function: hs_cosine, layer_mapping: [{student: 1, teacher: 2}, {student: 2, teacher: 4}]},
    {function: attention_mse, layer_mapping: [{student: 0, teacher: 3}, {student: 1, teacher: 4}]}, {function: kl}]'
same_student run listed
expect 1 deeper.log "$limbeck" train recipe.yaml -o deeper --set student.num_hidden_layers=7 \
    --set 'loss_functions=[{function: hs_mse, layer_mapping: uniform}]'
one_error deeper.log
said deeper.log "loss_functions.0.layer_mapping: the student has 7 layers, teacher T has 6"

say "projections between unlike widths are kept with the run, and not exported"
expect 0 kept.log "$limbeck" train recipe.yaml -o kept --set max_steps=4 --set save_steps=2 \
    --set 'loss_functions=[{function: hs_mse}, {function: hs_cosine}]'
grep -qa 'projection.0.0.weight' kept/checkpoint-2/* || fail "the checkpoint has no projection"
! grep -qa 'projection' kept/student/* || fail "the student has a projection"
cp -r kept again
rm -r again/student again/checkpoint-4
expect 0 again.log "$limbeck" train recipe.yaml -o again --resume --set max_steps=4 --set save_steps=2 \
    --set 'loss_functions=[{function: hs_mse}, {function: hs_cosine}]'
same_student kept again
