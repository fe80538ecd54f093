#!/bin/sh
# What proves the gradients and values of every loss, mixture and optimizer: one Markdown table, of the entries of the
# tables by name, of
#   - the largest relative error of their gradients against finite differences (tests/grad), and
#   - the largest difference of their values and gradients to what PyTorch makes of the papers' formulas (tests/golden).
#
#   proofs.sh [BUILD]     BUILD: where it is built, build/ by default
#
# Each line is one lane: what the entry was taken on. An entry of a table that lacks one of its proofs stands there as
# MISSING, and fails; so does a test that fails. Optimizers have no gradients, and whole steps no golden values; those are
# of smooth losses only, of others finite differences tell nothing there (tests/grad/step_world.h).
set -eu
build=${1:-build}
tests="grad/test_grad_losses grad/test_grad_between grad/test_grad_internals grad/test_grad_step golden/test_golden_losses golden/test_golden_internals
    golden/test_golden_uld golden/test_golden_alm golden/test_golden_mixtures golden/test_golden_optimizer"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LB_PROOFS="$work/proofs" LB_SOURCE_ROOT="${LB_SOURCE_ROOT:-$(cd "$(dirname "$0")/.." && pwd)}"
# As meson runs them: threads that spin while they wait take minutes where others compute.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
: >"$LB_PROOFS"
bad=0
for test in $tests; do
    if ! [ -x "$build/tests/$test" ]; then
        echo "$build/tests/$test is not built: ninja -C $build" >&2
        exit 1
    fi
    if ! "$build/tests/$test" >"$work/log" 2>&1; then
        echo "$test fails:" >&2
        grep -E '^\[ +(FAILED|ERROR)|no golden values|has no formula' "$work/log" >&2 || tail -n 5 "$work/log" >&2
        bad=1
    fi
done
# One line an entry and lane: kind, name, lane, and what was measured on it.
awk -F '\t' '
    $4 == "table" { listed[$1 FS $2] = 1; next }
    {
        at = $1 FS $2 FS $3
        seen[at] = 1
        if (!((at, $4) in worst) || $5 + 0 > worst[at, $4] + 0) { worst[at, $4] = $5 }
        entries[at, $4] += $6
    }
    function figure(at, what, needed) {
        return (at, what) in worst ? worst[at, what] : needed ? "MISSING" : "-"
    }
    function row(kind, name, lane,    at, step, d, v, g) {
        at = kind FS name FS lane
        step = lane ~ /^whole step/
        d = figure(at, "differences", kind == "loss" || (kind == "mixture" && step))
        v = figure(at, "value", !step)
        g = figure(at, "gradient", kind != "optimizer" && !step && lane != "weights")
        printf "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d\n", kind, name, lane, d, entries[at, "differences"], v, g,
            entries[at, "value"] + entries[at, "gradient"]
    }
    END {
        for (at in seen) {
            split(at, part, FS)
            if ((part[1] FS part[2]) in listed) { row(part[1], part[2], part[3]); has[part[1] FS part[2]] = 1 }
            if (part[3] ~ /^whole step/) { stepped[part[1] FS part[2]] = 1 } else { proven[part[1] FS part[2]] = 1 }
        }
        for (entry in listed) {
            split(entry, part, FS)
            if (!(entry in proven)) { row(part[1], part[2], "none") }
            if (part[1] == "mixture" && !(entry in stepped)) { row(part[1], part[2], "whole step") }
        }
    }' "$LB_PROOFS" | LC_ALL=C sort -t "$(printf '\t')" -k 1,1 -k 2,2 -k 3,3 >"$work/rows"
for kind in loss mixture optimizer; do
    if ! grep -q "^$kind	" "$work/rows"; then
        echo "no test tells of the table: $kind" >&2
        bad=1
    fi
done
awk -F '\t' '
    BEGIN {
        print "| of | name | lane | gradient to finite differences | numbers | value to PyTorch | gradient to PyTorch | numbers |"
        print "|---|---|---|---|---|---|---|---|"
    }
    { printf "| %s | %s | %s | %s | %d | %s | %s | %d |\n", $1, $2, $3, $4, $5, $6, $7, $8 }' "$work/rows"
if grep -q MISSING "$work/rows"; then
    bad=1
fi
exit $bad
