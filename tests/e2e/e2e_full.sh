#!/bin/bash
# A full disk: one clear line, the last good checkpoint stays, and once there is room the run goes on to the same bits.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

make_teachers 10
host nouns nouns/student
host others others/student
distil_recipe distil.yaml
expect 0 run.log "$limbeck" train distil.yaml

# The newest checkpoint of a run folder has all that it needs.
last_checkpoint() { # run folder
    local last
    last=$(find "$1" -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -n 1)
    [ -n "$last" ] || fail "no checkpoint in $1"
    for file in model.safetensors optimizer.safetensors state.json; do
        [ -s "$last/$file" ] || fail "$last lacks $file"
    done
    echo "$last"
}

say "files that may not grow"
bytes=$(stat -c %s run/checkpoint-40/model.safetensors)
expect 1 small.log bash -c "trap '' XFSZ; ulimit -f $((bytes / 2048)); exec \"\$@\"" - \
    "$limbeck" train distil.yaml --output-dir small
one_error small.log
said small.log small/ "File too large"
expect 0 small2.log "$limbeck" train distil.yaml --output-dir small --resume
same_student run small
start first.log "$limbeck" train distil.yaml --output-dir later
await reached later 9
kill -INT "$job"
ends_with 3 "$job" first.log
before=$(last_checkpoint later)
expect 1 later.log bash -c "trap '' XFSZ; ulimit -f $((bytes / 2048)); exec \"\$@\"" - \
    "$limbeck" train distil.yaml --output-dir later --resume
one_error later.log
[ "$(last_checkpoint later)" = "$before" ] || fail "the last good checkpoint is gone"
expect 0 later2.log "$limbeck" train distil.yaml --output-dir later --resume
same_student run later

say "output that finds no room"
expect 1 output.log bash -c '"$@" >/dev/full' - "$limbeck" tokenize nouns/student "a small bird"
one_error output.log
said output.log "not all of the output could be written: No space left on device"

say "a small disk"
mkdir disk
if ! mount -t tmpfs -o size=$((bytes * 7 / 2)) none disk 2>mount.log; then
    say "no right to mount one: $(cat mount.log)"
    exit 0
fi
mounts+=("$folder/disk")
expect 1 full.log "$limbeck" train distil.yaml --output-dir disk/run
one_error full.log
said full.log disk/run "No space left on device"
before=$(last_checkpoint disk/run)
expect 1 still.log "$limbeck" train distil.yaml --output-dir disk/run --resume
one_error still.log
[ "$(last_checkpoint disk/run)" = "$before" ] || fail "the last good checkpoint is gone"
mount -o remount,size=$((bytes * 40)) disk
expect 0 room.log "$limbeck" train distil.yaml --output-dir disk/run --resume
said room.log "resumed checkpoint="
same_student run disk/run
[ -z "$(find disk/run -name '.unfinished*' -o -name '*.tmp*')" ] || fail "something half-written was left"

say "a full disk of the journal alone: the steps are kept"
room=1 left=0
until [ "$room" -lt "$left" ]; do # its last page has room: stopped late, the rest of the run fits into that
    rm -rf journal
    start journal.log "$limbeck" train distil.yaml --output-dir journal
    await reached journal 9
    kill -INT "$job"
    ends_with 3 "$job" journal.log
    size=$(stat -c %s journal/metrics.jsonl) lines=$(wc -l <journal/metrics.jsonl)
    room=$((4096 - size % 4096)) left=$(((40 - lines) * size / lines * 3 / 4))
done
mkdir journaldisk
mount -t tmpfs -o size=$((size + room)) none journaldisk
mounts+=("$folder/journaldisk")
cp journal/metrics.jsonl journaldisk/
head -c 1M /dev/zero >journaldisk/zeros 2>/dev/null || true
mount --bind journaldisk/metrics.jsonl journal/metrics.jsonl
mounts+=("$folder/journal/metrics.jsonl")
before=$(last_checkpoint journal)
expect 1 journal2.log "$limbeck" train distil.yaml --output-dir journal --resume --set save_steps=0
one_error journal2.log
said journal2.log "cannot write" metrics.jsonl "No space left on device" "saved step="
[ "$(last_checkpoint journal)" != "$before" ] || fail "the steps are lost"
umount -l journal/metrics.jsonl
expect 0 journal3.log "$limbeck" train distil.yaml --output-dir journal --resume
same_student run journal

say "a full disk of the cache costs speed, not the run"
mkdir cachedisk
mount -t tmpfs -o size=128k none cachedisk
mounts+=("$folder/cachedisk")
expect 0 cache.log "$limbeck" train distil.yaml --output-dir cached --set cache_dir=cachedisk/cache
said cache.log cache_not_written
same_student run cached
