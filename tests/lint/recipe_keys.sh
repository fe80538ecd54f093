#!/bin/sh
# Holds the last section of trainer/RECIPE.md against the recipe's table of keys, and that README.md leads there.
#   recipe_keys.sh LIMBECK ROOT           says what differs
#   recipe_keys.sh --write LIMBECK ROOT   puts the table into trainer/RECIPE.md
set -eu
write=no
if [ "$1" = --write ]; then
    write=yes
    shift
fi
limbeck=${1:?usage: recipe_keys.sh [--write] LIMBECK ROOT}
page=${2:?}/trainer/RECIPE.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$limbeck" train --help-recipe | grep '^|' >"$work/table"
sed -n '/^## Every key of a recipe$/,$p' "$page" | grep '^|' >"$work/told" || true
if [ $write = yes ]; then
    sed '/^## Every key of a recipe$/,${/^|/d}' "$page" >"$work/page"
    cat "$work/page" "$work/table" >"$page"
elif ! diff -u "$work/told" "$work/table"; then
    echo "trainer/RECIPE.md's table of recipe keys is not what limbeck train --help-recipe prints;" \
        "run: sh tests/lint/recipe_keys.sh --write build/trainer/limbeck ."
    exit 1
elif ! grep -q '](trainer/RECIPE.md)' "$2/README.md"; then
    echo "README.md does not lead to trainer/RECIPE.md"
    exit 1
fi
