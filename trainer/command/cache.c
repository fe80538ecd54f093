/* limbeck cache stats|verify DIR */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/cache/cache.h"
#include "trainer/command/commands.h"

#include <inttypes.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct arguments {
    const char *action, *dir;
    bool json, repair;
};

static const char *const actions[] = {"stats", "verify", NULL};

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'j':
        a->json = true;
        return 0;
    case 'r':
        a->repair = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) {
            a->action = text;
        } else if (state->arg_num == 1) {
            a->dir = text;
        } else {
            argp_usage(state);
        }
        return 0;
    case ARGP_KEY_END:
        if (!a->action || !a->dir) {
            argp_error(state, "what to do and the cache's folder are needed: limbeck cache stats DIR");
            return EINVAL; /* not reached */
        }
        (void)lb_option_name(state, "what to do", a->action, actions);
        if (a->repair && strcmp(a->action, "verify")) {
            argp_error(state, "--repair goes with verify");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static double mib(uint64_t bytes) {
    return (double)bytes / (1 << 20);
}

static enum lb_status print_stats(struct lb_cache *cache, const struct arguments *a,
                                  struct lb_detail *detail) {
    struct lb_cache_stats s;
    enum lb_status status = lb_cache_stats(cache, &s, detail);
    if (status != LB_OK) {
        return status;
    }
    if (a->json) {
        lb_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "dir", a->dir, "entries",
                                (json_int_t)s.entries, "blobs", (json_int_t)s.blobs, "tokens",
                                (json_int_t)s.tokens, "raw_bytes", (json_int_t)s.raw_bytes, "stored_bytes",
                                (json_int_t)s.stored_bytes, "file_bytes", (json_int_t)s.file_bytes,
                                "max_bytes", (json_int_t)s.max_bytes),
                      0);
        return LB_OK;
    }
    printf("%s: %" PRIu64 " answers about %" PRIu64 " tokens, %" PRIu64 " heads, infos and texts\n", a->dir,
           s.entries, s.tokens, s.blobs);
    printf("%.1f MiB of answers in %.1f MiB (%.2f bytes a token); the file has %.1f of at most %.1f MiB\n",
           mib(s.raw_bytes), mib(s.stored_bytes), s.tokens ? (double)s.stored_bytes / (double)s.tokens : 0.0,
           mib(s.file_bytes), mib(s.max_bytes));
    return LB_OK;
}

/* LB_E_FORMAT when bad answers are left. */
static enum lb_status verify(const struct arguments *a, const volatile sig_atomic_t *stop,
                             struct lb_detail *detail) {
    struct lb_cache_report r;
    enum lb_status status = lb_cache_verify(a->dir, a->repair, stop, &r, detail);
    if (status != LB_OK) {
        return status;
    }
    bool bad = r.bad > 0 || r.file_damaged;
    if (a->json) {
        lb_print_json(json_pack("{s:s, s:I, s:I, s:b, s:b}", "dir", a->dir, "entries", (json_int_t)r.entries,
                                "bad", (json_int_t)r.bad, "file_damaged", r.file_damaged, "repaired",
                                a->repair && bad),
                      0);
    } else {
        printf("%s: %" PRIu64 " answers read, %" PRIu64 " bad%s\n", a->dir, r.entries, r.bad,
               r.bad > 0 && a->repair ? " ones removed; they will be asked for again" : "");
        if (r.file_damaged) {
            printf("%s: %s is damaged%s\n", a->dir, LB_CACHE_FILE,
                   a->repair ? "; what could be read is in a new file, the old one is beside it" : "");
        }
    }
    if (bad && !a->repair) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: %" PRIu64 " of %" PRIu64 " answers are bad%s; --repair mends it", a->dir, r.bad,
                       r.entries, r.file_damaged ? " and the file is damaged" : "");
    }
    return LB_OK;
}

int lb_cmd_cache(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "Print the result as JSON", 0},
        {"repair", 'r', NULL, 0, "verify: remove damaged answers, so that they are asked for again", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "stats|verify DIR",
        .doc = "Looks into a cache of teachers' answers (a recipe's cache_dir): what is in it, "
               "and whether all of it is whole.\vverify ends with status 1 while damaged "
               "answers are left. Trainers may use the cache at the same time."};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    struct lb_detail detail = {0};
    struct lb_cache *cache = NULL;
    enum lb_status status = LB_OK;
    char *file = lb_path_join(a.dir, LB_CACHE_FILE);
    if (!file || !lb_file_exists(file)) { /* opening would make one */
        status = lb_fail(&detail, LB_E_NOTFOUND, "%s: there is no cache in this folder", a.dir);
    }
    lb_free(file);
    if (status == LB_OK && !strcmp(a.action, "verify")) {
        status = verify(&a, stop, &detail);
    } else if (status == LB_OK) {
        status = lb_cache_open(a.dir, 0, &cache, &detail);
        status = status == LB_OK ? print_stats(cache, &a, &detail) : status;
    }
    lb_cache_close(cache);
    return status != LB_OK ? lb_command_failed(&detail, status) : 0;
}
