# The rules about C files that the compilers do not know: who may include what, names of header guards, functions
# that are not used here. Reads the files given as arguments (paths from the top of the tree), prints one line per
# violation. Plain awk; the tables at the top are the rules.

BEGIN {
    # Tier -> what its files may include, as path prefixes. A file belongs to the longest tier that fits.
    allow["common/base"]    = "common/base/"
    allow["common/nn"]      = "common/base/ common/nn/"
    allow["common/formats"] = "common/base/ common/nn/ common/formats/"
    allow["common/text"]    = "common/base/ common/formats/ common/text/"
    allow["common/chat"]    = "common/base/ common/formats/ common/text/ common/chat/"
    allow["common/model"]   = "common/"
    allow["proto"]          = "common/base/ proto/"
    common = "common/ proto/"
    allow["server/http"]    = common " server/http/"
    allow["server/models"]  = common " server/models/"
    allow["server/engine"]  = common " server/metrics.h server/models/ server/engine/"
    allow["server/api"]     = common " server/metrics.h server/options.h server/http/ server/models/ server/engine/ server/api/"
    allow["server"]         = common " server/"
    allow["trainer/wire"]     = common " trainer/wire/"
    allow["trainer/loss"]     = allow["trainer/wire"] " trainer/loss/"
    allow["trainer/cache"]    = allow["trainer/wire"] " trainer/cache/"
    allow["trainer/recipe"]   = allow["trainer/loss"] " trainer/cache/ trainer/recipe/"
    allow["trainer/data"]     = allow["trainer/recipe"] " trainer/data/"
    allow["trainer/teachers"] = allow["trainer/recipe"] " trainer/teachers/"
    allow["trainer/learn"]    = allow["trainer/data"] " trainer/teachers/ trainer/learn/"
    allow["trainer/run"]      = allow["trainer/learn"] " trainer/run/"
    allow["trainer/command"]  = allow["trainer/run"] " trainer/command/"
    allow["trainer"]          = ""
    allow["tests"]          = "common/ proto/ server/ trainer/ tests/"
    n_tiers = split("common/base common/nn common/formats common/text common/chat common/model proto server/http server/models " \
        "server/engine server/api server trainer/wire trainer/loss trainer/cache trainer/recipe trainer/data " \
        "trainer/teachers trainer/learn trainer/run trainer/command trainer tests", tiers, " ")

    # Library header -> the files that may include it. "one": of the files that fit, only one may.
    home("gnutls/",        "^server/http/tls[a-z_]*[.]c$", "one")
    home("curl/",          "^trainer/wire/http[a-z_]*[.]c$",   "one")
    home("cblas.h",        "^common/nn/gemm[.]c$",        "one")
    home("sqlite3.h",      "^trainer/cache/parts[.]h$",    "one")
    home("yaml.h",         "^trainer/recipe/tree[.]c$",    "one")
    home("openssl/",       "^common/base/sha256[.]c$",    "one")
    home("jansson.h",      "^common/base/json[.]h$",      "one")
    home("pcre2.h",        "^common/text/",               "any")
    home("utf8proc.h",     "^common/text/",               "any")
    home("zstd.h",         "^trainer/cache/[a-z_]*[.]c$",  "one")
    home("xxhash.h",       "^trainer/cache/[a-z_]*[.]c$",  "one")

    # Functions nobody calls (they overflow, share hidden state, or start a shell) ...
    n_banned = split("gets rand srand random alloca system popen tmpnam mktemp", banned, " ")
    n_loose = split("strcpy strcat sprintf vsprintf strtok", loose, " ") # tests may, on their own literals
    # ... that only common/base/mem.c calls, so that every allocation can be made to fail ...
    n_heap = split("malloc calloc realloc reallocarray strdup strndup asprintf vasprintf aligned_alloc posix_memalign", heap, " ")
    # ... and that libraries leave to programs.
    n_program = split("printf vprintf puts putchar perror exit _exit quick_exit abort lb_log", program, " ")
    max_lines = 650 # 150 to 600 is the aim
}

function home(header, pattern, how) {
    home_of[header] = pattern
    home_how[header] = how
}

function complain(text) {
    printf "%s:%d: %s\n", FILENAME, FNR, text
    failed = 1
}

function starts(text, prefix) {
    return substr(text, 1, length(prefix)) == prefix
}

# Without comments and with empty string and character literals; in_comment carries over lines.
function code_of(line,    out, i, n, c, two, quote) {
    if (!in_comment && line !~ /["'\/]/) {
        return line
    }
    out = ""
    quote = ""
    n = length(line)
    for (i = 1; i <= n; i++) {
        c = substr(line, i, 1)
        two = substr(line, i, 2)
        if (in_comment) {
            if (two == "*/") {
                in_comment = 0
                i++
                out = out " "
            }
        } else if (quote != "") {
            if (c == "\\") {
                i++
            } else if (c == quote) {
                quote = ""
                out = out c
            }
        } else if (two == "/*") {
            in_comment = 1
            i++
        } else if (two == "//") {
            break
        } else {
            if (c == "\"" || c == "'") {
                quote = c
            }
            out = out c
        }
    }
    return out
}

function calls(code, name) {
    return code ~ ("(^|[^A-Za-z0-9_])" name "[ \t]*[(]")
}

function tier_of(path,    i, best) {
    best = ""
    for (i = 1; i <= n_tiers; i++) {
        if (starts(path, tiers[i] "/") && length(tiers[i]) > length(best)) {
            best = tiers[i]
        }
    }
    return best
}

function check_quoted(target,    i, n, parts, ok) {
    if (target ~ /[.]c$/ && tier != "tests") {
        complain("includes a .c file: " target)
    }
    if (target ~ /^[.]/ || tier_of(target) == "") {
        # Fuzz targets and test programs have no local headers either: "tests/support/x.h".
        complain("an include names its tier (\"common/nn/tape.h\"), not \"" target "\"")
        return
    }
    n = split(allow[tier], parts, " ")
    ok = 0
    for (i = 1; i <= n; i++) {
        ok = ok || starts(target, parts[i])
    }
    if (!ok) {
        complain(tier " may not include " target " (it may use: " allow[tier] ")")
    }
}

function check_library(target,    header) {
    if (starts(target, "common/") || starts(target, "proto/") || starts(target, "server/") || starts(target, "trainer/")) {
        complain("own headers are included with quotes: " target)
    }
    if (tier == "tests") {
        return
    }
    for (header in home_of) {
        if (target != header && !(header ~ /\/$/ && starts(target, header))) {
            continue
        }
        if (FILENAME !~ home_of[header]) {
            complain("<" target "> is included only by files that match " home_of[header])
        } else if (home_how[header] == "one") {
            if (header in included_by && included_by[header] != FILENAME) {
                complain("<" target "> is included by one file, and " included_by[header] " has it already")
            }
            included_by[header] = FILENAME
        }
    }
}

function check_calls(code,    i) {
    for (i = 1; i <= n_banned; i++) {
        if (calls(code, banned[i])) {
            complain("does not use " banned[i] "()")
        }
    }
    if (tier == "tests") {
        return
    }
    for (i = 1; i <= n_loose; i++) {
        if (calls(code, loose[i])) {
            complain("does not use " loose[i] "()")
        }
    }
    if (FILENAME != "common/base/mem.c") {
        for (i = 1; i <= n_heap; i++) {
            if (calls(code, heap[i])) {
                complain("allocates by common/base/mem.h or an arena, not by " heap[i] "()")
            }
        }
    }
    if ((starts(FILENAME, "common/") || starts(FILENAME, "proto/")) && FILENAME !~ /^common\/(base\/log[.][ch]|nn\/cpu_guard[.]c)$/) {
        for (i = 1; i <= n_program; i++) {
            if (calls(code, program[i])) {
                complain("is a library and does not call " program[i] "()")
            }
        }
        if (code ~ /(^|[^A-Za-z0-9_])(stdout|stderr)([^A-Za-z0-9_]|$)/) {
            complain("is a library and does not write to standard output or error")
        }
    }
}

# common/base/arena.h -> LB_BASE_ARENA_H, tests/support/peer.h -> LB_TESTS_PEER_H
function guard_of(path,    parts, n, name) {
    n = split(path, parts, "/")
    name = "LB_" (parts[1] == "tests" ? "tests" : parts[n - 1]) "_" parts[n]
    gsub(/[.-]/, "_", name)
    return toupper(name)
}

function finish_file() {
    if (last_file == "") {
        return
    }
    if (last_file ~ /[.]h$/) {
        guard = guard_of(last_file)
        if (last_file ~ /^tests\/[a-z0-9]+\/[^\/]*$/) { # the whole path is as good
            split(last_file, path, "/")
            room = toupper(path[2]) "_"
            if (first_directive ~ ("LB_TESTS_" room)) {
                sub(/LB_TESTS_/, "LB_TESTS_" room, guard)
            }
        }
        if (first_directive != "#ifndef " guard || second_directive != "#define " guard || last_directive !~ /^#endif/) {
            printf "%s:1: the header guard is %s (#ifndef, #define first, #endif last)\n", last_file, guard
            failed = 1
        }
    }
    if (last_count > max_lines && last_file !~ /^tests\//) {
        printf "%s:%d: has %d lines; split files well before %d\n", last_file, last_count, last_count, max_lines
        failed = 1
    }
}

FNR == 1 {
    finish_file()
    last_file = FILENAME
    tier = tier_of(FILENAME)
    in_comment = 0
    n_directives = 0
    first_directive = ""
    second_directive = ""
    last_directive = ""
}

{
    last_count = FNR
    if (!in_comment && $0 ~ /^[ \t]*#[ \t]*include[ \t]*["<]/) {
        target = $0
        sub(/^[ \t]*#[ \t]*include[ \t]*/, "", target)
        mark = substr(target, 1, 1)
        target = substr(target, 2)
        sub(/[">].*$/, "", target)
        if (mark == "\"") {
            check_quoted(target)
        } else {
            check_library(target)
        }
    }
    if ($0 ~ /(^|[^A-Za-z0-9_])(TODO|FIXME|XXX)([^A-Za-z0-9_]|$)/) {
        complain("finish it or write an issue: TODO, FIXME and XXX are not left in the code")
    }
    code = code_of($0)
    if (code ~ /^[ \t]*#/) {
        directive = code
        gsub(/[ \t]+/, " ", directive)
        sub(/ $/, "", directive)
        n_directives++
        if (n_directives == 1) {
            first_directive = directive
        } else if (n_directives == 2) {
            second_directive = directive
        }
        last_directive = directive
    }
    if (code ~ /[A-Za-z_][A-Za-z0-9_]*[ \t]*[(]/) {
        check_calls(code)
    }
    if (code ~ /typedef[ \t]+(struct|union|enum)[^(]*[;{]/) {
        complain("structs are not typedef'd: write struct lb_noun")
    }
    if (code ~ /#[ \t]*pragma/ && code ~ /(fast-math|Ofast|optimize)/) {
        complain("floating point is compiled the same everywhere: no pragma that changes it")
    }
}

END {
    finish_file()
    exit failed
}
