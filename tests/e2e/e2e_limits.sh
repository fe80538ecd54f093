#!/bin/bash
# A teacher whose token has limits, and that is read anew meanwhile: the trainer waits as it is told, and learns the same.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

say "a teacher without limits"
make_teachers 5
printf 'free-token-1\n' >free
printf 'limited-token-1\n' >limited
chmod 600 free limited
host nouns nouns/student --token-file free
text nouns 400 31 >train.txt
base_recipe >distil.yaml
cat >>distil.yaml <<END
datasets: [{path: train.txt}]
teachers: [{name: nouns, url: "${url[nouns]}", token_file: free}]
loss_functions: [{function: kl}]
seed: 3
output_dir: free-run
END
expect 0 free.log "$limbeck" train distil.yaml --set cache_dir=free-cache
curl -sf -H "Authorization: Bearer free-token-1" "${url[nouns]}/metrics" >metrics
tokens=$(sed -n 's/^limbeckd_asked_tokens_total{model="nouns"} //p' metrics)
[ "$tokens" -gt 1000 ] || fail "tokens: $tokens"

say "one with: some requests are told to come again, none is lost"
printf 'sweep limited-token-1 scopes=ask concurrent=1 tokens_per_minute=%d # of %d\n' $((tokens * 9 / 10)) "$tokens" >tokens
chmod 600 tokens
drop nouns
host nouns nouns/student --token-file tokens
expect 0 limited.log "$limbeck" train distil.yaml --set cache_dir=limited-cache --set teachers.0.token_file=limited \
    --output-dir limited-run
said nouns.log 'client="sweep"' status=429
same_student free-run limited-run

say "the daemon's list is no token"
expect 1 list.log "$limbeck" train distil.yaml --set teachers.0.token_file=tokens --output-dir other-run
said list.log "tokens: its first line holds more than a token; put the token alone into a file"
one_error list.log

say "a token that isn't good for this"
printf 'sweep limited-token-1 scopes=metrics\n' >tokens
kill -HUP "${pid[nouns]}"
await has nouns.log " reloaded "
expect 1 scope.log "$limbeck" train distil.yaml --set cache_dir=other-cache --set teachers.0.token_file=limited --output-dir other-run
said scope.log "this needs a token of scope ask; sweep has metrics"
one_error scope.log
