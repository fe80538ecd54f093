# No file may, through what its code uses, come back to itself. NAME.c and NAME.h are one file here; only includes of
# .c files count (a header may name the types of another), and headers without a .c of their name have nothing to use.
# Prints each circle found once. Plain awk.

function base_of(path) {
    sub(/[.][ch]$/, "", path)
    return path
}

FNR == 1 {
    from = base_of(FILENAME)
    if (!(from in n_uses)) {
        n_uses[from] = 0
        names[++n_names] = from
    }
}

FILENAME ~ /[.]c$/ && /^[ \t]*#[ \t]*include[ \t]*"/ {
    target = $0
    sub(/^[^"]*"/, "", target)
    sub(/".*$/, "", target)
    target = base_of(target)
    if (target != from) {
        uses[from, ++n_uses[from]] = target
    }
}

# Depth first; state 1: on the way down to here, 2: done.
function visit(name, way,    i, next_name) {
    state[name] = 1
    way = way " -> " name
    for (i = 1; i <= n_uses[name]; i++) {
        next_name = uses[name, i]
        if (state[next_name] == 1) {
            circle = way " -> " next_name
            sub("^.* -> " next_name " -> ", next_name " -> ", circle)
            print "circle of files: " circle
            failed = 1
        } else if (!state[next_name]) {
            visit(next_name, way)
        }
    }
    state[name] = 2
}

END {
    for (k = 1; k <= n_names; k++) {
        if (!state[names[k]]) {
            visit(names[k], "")
        }
    }
    exit failed
}
