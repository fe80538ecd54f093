#!/bin/sh
# Checks that ARCHITECTURE.md speaks of every folder that holds sources, and of no folder or file that is not there.
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
    name=${folder##*/}
    case $folder in
    tests/*/* | examples/*/*) continue ;; # what lies deeper belongs to its suite or example
    tests/* | examples/*)
        # Named by its path, or as a word of a line about its parent.
        if grep -E "\`?${folder%%/*}\`?" ARCHITECTURE.md | grep -qE "(^|[^A-Za-z0-9_])$name([^A-Za-z0-9_]|\$)"; then
            continue
        fi
        ;;
    *)
        if grep -qE "(^|[^A-Za-z0-9_/])$folder([^A-Za-z0-9_]|\$)" ARCHITECTURE.md; then
            continue
        fi
        ;;
    esac
    echo "ARCHITECTURE.md says nothing about $folder/"
    bad=1
done
# Patterns (trainer/cmd_<name>.c, tests/*) are no paths.
for path in $(sed 's|[A-Za-z0-9_./-]*[<*{][^ `]*||g' ARCHITECTURE.md |
    grep -oE '(common|proto|server|trainer|tests|examples|docker)/[A-Za-z0-9_./-]*[A-Za-z0-9_]' | LC_ALL=C sort -u); do
    # "server/http" may mean http.c and http.h together.
    if [ ! -e "$path" ] && [ ! -e "$path.c" ] && [ ! -e "$path.h" ]; then
        echo "ARCHITECTURE.md names $path, which is not there"
        bad=1
    fi
done
exit $bad
