#!/bin/sh
# Holds README.md's last section against the recipe's table of keys.
#   recipe_keys.sh LIMBECK ROOT           says what differs
#   recipe_keys.sh --write LIMBECK ROOT   puts the table into README.md
set -eu
write=no
if [ "$1" = --write ]; then
    write=yes
    shift
fi
limbeck=${1:?usage: recipe_keys.sh [--write] LIMBECK ROOT}
readme=${2:?}/README.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$limbeck" train --help-recipe | grep '^|' >"$work/table"
sed -n '/^## Every key of a recipe$/,$p' "$readme" | grep '^|' >"$work/told" || true
if [ $write = yes ]; then
    sed '/^## Every key of a recipe$/,${/^|/d}' "$readme" >"$work/readme"
    cat "$work/readme" "$work/table" >"$readme"
elif ! diff -u "$work/told" "$work/table"; then
    echo "README.md's table of recipe keys is not what limbeck train --help-recipe prints;" \
        "run: sh tests/lint/recipe_keys.sh --write build/trainer/limbeck ."
    exit 1
fi
