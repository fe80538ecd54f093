#!/bin/sh
# Checks the rules of the house that compilers do not know (rules.awk, and below those about other files).
#   includes.sh ROOT          checks the tree at ROOT
#   includes.sh --self-test   seeds one violation of each rule into a small tree and sees that each is found
set -eu
here=$(cd "$(dirname "$0")" && pwd)

# Paths of the machines that people work on have no place in the tree. Spelled so that this file does not match.
machine_paths='/wo''rk/|/ro''ot/|/ho''me/[a-z]|/tmp/ba''sh_jobs|/opt/pe''ers'
# What makes sums depend on the compiler.
loose_maths='-ff''ast-math|-Of''ast|-fun''safe-math|-fass''ociative-math|-ffinite-ma''th-only'

# Files of the tree: what git has or would take, else everything that is not a build folder.
list_files() {
    if [ -e .git ] && command -v git >/dev/null 2>&1 && git rev-parse >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard | while IFS= read -r file; do
            [ ! -f "$file" ] || printf '%s\n' "$file"
        done
    else
        find . -type d \( -name 'build*' -o -name .git -o -name runs -o -name .venv -o -name __pycache__ \) -prune \
            -o -type f -print | sed 's|^\./||'
    fi
}

check_tree() {
    cd "$1"
    bad=0
    files=$(mktemp)
    trap 'rm -f "$files"' EXIT
    list_files | LC_ALL=C sort >"$files"

    sources=$(grep -E '^(common|proto|server|trainer|tests)/.*\.[ch]$' "$files" | grep -v '^tests/add/' || true)
    if [ -z "$sources" ]; then
        echo "$1: no C files found"
        return 1
    fi
    # shellcheck disable=SC2086 # the names hold no spaces, which the next check sees to
    LC_ALL=C awk -f "$here/rules.awk" $sources || bad=1
    # shellcheck disable=SC2046
    LC_ALL=C awk -f "$here/circles.awk" $(printf '%s\n' "$sources" | grep -v '^tests/') || bad=1

    if grep -n '[^A-Za-z0-9_./+,=@-]' "$files"; then
        echo "^ file names are plain: letters, digits, and _ . / + , = @ -"
        bad=1
    fi
    # NUL-separated would be nicer, but names are plain and POSIX xargs knows only lines.
    if xargs grep -InE -e "$machine_paths" <"$files" /dev/null; then
        echo "^ a path of somebody's machine"
        bad=1
    fi
    if grep -E '(^|/)meson(\.build|_options\.txt)$|(^|/)(check|quickstart)$|^\.ci/|^docker/' "$files" |
        xargs grep -nE -e "$loose_maths" /dev/null | grep -vE '(#|never|no) .*never|[Nn]ever'; then
        echo "^ an option that lets the compiler reorder floating-point sums"
        bad=1
    fi
    return $bad
}

# ---- the self-test ----

seed() { # path, then lines
    mkdir -p "$(dirname "$tree/$1")"
    seeded=$1
    shift
    printf '%s\n' "$@" >"$tree/$seeded"
}

expect() { # what the check must say once the file is as seeded; the file goes afterwards
    n_cases=$((n_cases + 1))
    if out=$(sh "$here/includes.sh" "$tree" 2>&1); then
        echo "not found: $1 (in $seeded)"
        n_failed=$((n_failed + 1))
    elif ! printf '%s\n' "$out" | grep -qF -e "$1"; then
        printf 'expected "%s" for %s, got:\n%s\n' "$1" "$seeded" "$out"
        n_failed=$((n_failed + 1))
    fi
    rm -f "${tree:?}/$seeded"
}

expect_clean() {
    n_cases=$((n_cases + 1))
    if ! out=$(sh "$here/includes.sh" "$tree" 2>&1); then
        printf 'a tree without violations is refused (%s):\n%s\n' "$1" "$out"
        n_failed=$((n_failed + 1))
    fi
}

self_test() {
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    n_cases=0
    n_failed=0
    seed common/base/a.h '/* A header. */' '#ifndef LB_BASE_A_H' '#define LB_BASE_A_H' '#endif'
    seed common/base/mem.c '#include "common/base/a.h"' 'p = malloc(3); /* strcpy(a, b) */' 's = "gets(x)";'
    seed common/base/sha256.c '#include <openssl/evp.h>'
    seed common/base/json.h '#ifndef LB_BASE_JSON_H' '#define LB_BASE_JSON_H' '#include <jansson.h>' '#endif'
    seed common/nn/gemm.c '#include <cblas.h>' '#include "common/base/a.h"' '#include "common/nn/b.h"'
    seed common/text/t.c '#include "common/base/b.h"' '#include <pcre2.h>' 'strtok_r(a, b, &c);' 'my_rand(3);'
    seed common/model/m.c '#include "common/text/t.h"' '#include "common/formats/f.h"'
    seed proto/p.c '#include "common/base/a.h"' '#include "proto/p.h"' '/*' ' * exit(1)' ' */'
    seed server/http/tls.c '#include <gnutls/gnutls.h>' '#include "proto/p.h"' '#include "common/model/m.h"' 'exit(1);'
    seed trainer/cache/cache.c '#include <zstd.h>' '#include "common/nn/b.h"' 'printf("x");'
    seed tests/unit/test_x.c '#include "trainer/run/x.h"' '#include "common/base/a.c"' 'malloc(1);'
    expect_clean 'the seed'

    seed common/base/bad.c '#include "common/nn/b.h"'; expect 'common/base may not include common/nn/b.h'
    seed common/nn/bad.c '#include "common/formats/f.h"'; expect 'common/nn may not include'
    seed common/formats/bad.c '#include "common/text/t.h"'; expect 'common/formats may not include'
    seed common/text/bad.c '#include "common/nn/tape.h"'; expect 'common/text may not include common/nn/tape.h'
    seed common/model/bad.c '#include "proto/p.h"'; expect 'common/model may not include proto/p.h'
    seed proto/bad.c '#include "common/nn/dtype.h"'; expect 'proto may not include'
    seed server/bad.c '#include "trainer/x.h"'; expect 'server may not include trainer/x.h'
    seed trainer/run/bad.c ' #  include  "server/x.h" /* why */'; expect 'trainer/run may not include server/x.h'
    seed trainer/bad.c '#include "common/base/a.h"'; expect 'trainer may not include'
    seed trainer/wire/bad.c '#include "trainer/loss/x.h"'; expect 'trainer/wire may not include'
    seed trainer/loss/bad.c '#include "trainer/recipe/x.h"'; expect 'trainer/loss may not include'
    seed trainer/teachers/bad.c '#include "trainer/learn/x.h"'; expect 'trainer/teachers may not include'
    seed server/http/bad.c '#include "server/engine/x.h"'; expect 'server/http may not include'
    seed server/engine/bad.c '#include "server/api/x.h"'; expect 'server/engine may not include'
    seed trainer/run/bad.c '#include "tests/support/x.h"'; expect 'trainer/run may not include tests/'
    seed common/nn/bad.c '#include "tape.h"'; expect 'an include names its tier'
    seed server/bad.c '#include "../proto/p.h"'; expect 'an include names its tier'
    seed server/bad.c '#include <proto/p.h>'; expect 'with quotes'
    seed server/bad.c '#include "server/http/tls.c"'; expect 'includes a .c file'
    seed server/bad.c '#include <gnutls/gnutls.h>'; expect '<gnutls/gnutls.h> is included only by'
    seed server/http/tls_more.c '#include <gnutls/gnutls.h>'; expect 'is included by one file'
    seed trainer/run/bad.c '#include <curl/curl.h>'; expect '<curl/curl.h> is included only by'
    seed common/nn/bad.c '#include <cblas.h>'; expect '<cblas.h> is included only by'
    seed server/bad.c '#include <sqlite3.h>'; expect '<sqlite3.h> is included only by'
    seed trainer/run/bad.c '#include <yaml.h>'; expect '<yaml.h> is included only by'
    seed server/bad.c '#include <openssl/crypto.h>'; expect '<openssl/crypto.h> is included only by'
    seed proto/bad.c '#include <jansson.h>'; expect '<jansson.h> is included only by'
    seed trainer/run/bad.c '#include <utf8proc.h>'; expect '<utf8proc.h> is included only by'
    seed common/base/bad.h '#ifndef BAD_H' '#define BAD_H' '#endif'; expect 'the header guard is LB_BASE_BAD_H'
    seed common/base/bad.h '#pragma once'; expect 'the header guard is LB_BASE_BAD_H'
    seed common/base/bad.h '#ifndef LB_BASE_BAD_H' '#define LB_BASE_BAD_H'; expect 'the header guard is'
    for name in strcpy strcat sprintf gets strtok rand srand alloca system; do
        seed server/bad.c "x = $name(y);"; expect "does not use $name()"
    done
    seed server/bad.c 'x = "/*"; strcat(y, z);'; expect 'does not use strcat()'
    seed server/bad.c "x = '\"'; strcat(y, z); /* \" */"; expect 'does not use strcat()'
    seed tests/unit/bad.c 'a = system ("ls");'; expect 'does not use system()'
    seed trainer/run/bad.c 'p = strdup(q);'; expect 'not by strdup()'
    seed common/nn/bad.c 'p = calloc(1, 2);'; expect 'not by calloc()'
    seed common/nn/bad.c 'if (x) { exit(1); }'; expect 'does not call exit()'
    seed proto/bad.c 'fputs(text, stderr);'; expect 'standard output or error'
    seed proto/bad.c 'lb_log(LB_LOG_INFO, "x", "y");'; expect 'does not call lb_log()'
    seed server/bad.c 'typedef struct lb_x lb_x;'; expect "structs are not typedef'd"
    seed server/bad.c '/* TO''DO later */'; expect 'finish it'
    seed server/bad.c '#pragma GCC optimize("O3")'; expect 'no pragma'
    # shellcheck disable=SC2046 # one line per number
    seed server/bad.c $(seq 1 651); expect 'has 651 lines'
    seed server/ok.c 'typedef enum lb_status (*fn)(struct lb_x *x);' 'mkstemp("/tmp/lb-XXXXXX");'
    seed tests/support/a.h '#ifndef LB_TESTS_A_H' '#define LB_TESTS_A_H' '#endif'
    seed tests/support/b.h '#ifndef LB_TESTS_SUPPORT_B_H' '#define LB_TESTS_SUPPORT_B_H' '#endif'
    expect_clean 'function types, templates, guards of test headers'
    seed tests/support/bad.h '#ifndef LB_SUPPORT_BAD_H' '#define LB_SUPPORT_BAD_H' '#endif'; expect 'LB_TESTS_BAD_H'
    seed common/meson.build "c_args: ['-ff""ast-math']"; expect 'reorder floating-point sums'
    seed notes.md "see /wo""rk/x"; expect "a path of somebody's machine"
    seed 'odd name.md' 'text'; expect 'file names are plain'
    seed proto/q.c '#include "proto/r.h"'
    seed proto/r.c '#include "proto/q.h"'; expect 'circle of files: proto/q -> proto/r -> proto/q'
    rm -f "$tree/proto/q.c"
    expect_clean 'at the end'

    echo "$((n_cases - n_failed)) of $n_cases seeded cases behave"
    [ "$n_failed" -eq 0 ]
}

case ${1:-} in
--self-test)
    self_test
    ;;
'' | -*)
    echo "usage: includes.sh ROOT | --self-test" >&2
    exit 2
    ;;
*)
    check_tree "$1"
    ;;
esac
