#!/bin/sh
# Checks that ARCHITECTURE.md speaks of every folder that holds sources, and of no folder or C file that is not there.
#   architecture.sh ROOT
set -eu
cd "${1:?usage: architecture.sh ROOT}"
if [ ! -f ARCHITECTURE.md ]; then
    echo "ARCHITECTURE.md is missing"
    exit 1
fi
bad=0
for folder in $(find common proto server trainer tests examples docker -type f \
    \( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' -o -name '*.yaml' -o -name '*.awk' \) -print |
    sed 's|/[^/]*$||' | LC_ALL=C sort -u); do
    case $folder in
    tests/*/*) continue ;; # corpora and data of a suite belong to the suite
    esac
    # As "tests/unit", or under its parent as "unit/" in a tree drawing.
    if ! grep -qE "(^|[^A-Za-z0-9_/])($folder|${folder##*/}/)([^A-Za-z0-9_]|\$)" ARCHITECTURE.md; then
        echo "ARCHITECTURE.md says nothing about $folder/"
        bad=1
    fi
done
for path in $(grep -oE '(common|proto|server|trainer|tests|examples)/[A-Za-z0-9_./-]*[A-Za-z0-9_]' ARCHITECTURE.md |
    LC_ALL=C sort -u); do
    # "server/http" may mean http.c and http.h together.
    if [ ! -e "$path" ] && [ ! -e "$path.c" ] && [ ! -e "$path.h" ]; then
        echo "ARCHITECTURE.md names $path, which is not there"
        bad=1
    fi
done
exit $bad
