#include "trainer/teachers/teachers.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/arena.h"
#include "common/base/mem.h"
#include "trainer/teachers/pool.h"
#include "trainer/teachers/questions.h"
#include "trainer/wire/possible.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CONTACT_TIMEOUT_NS (10 * LB_SECOND_NS)
#define FIRST_WAIT_NS (100 * LB_MS_NS)
#define LONGEST_WAIT_NS (5 * LB_SECOND_NS)
#define TOLD_EVERY_NS (10 * LB_SECOND_NS)
#define MAX_INFO_BYTES (4u << 20)
#define MAX_OPTIONS_BYTES ((size_t)16 << 20)

struct teacher {
    const struct lb_teacher_address *is;
    const struct lb_dialect *dialect;
    char label[LB_MAX_NAME + 16]; /* "teacher math", for errors */
    const char **urls;            /* [n_urls] borrowed */
    bool *reached;                /* [n_urls] */
    int n_urls;
    struct lb_local *local;
    char *own_token; /* from token_file */
    const char *token;
    struct lb_teacher_info info;
    bool has_head;
    struct lb_ask_spec spec; /* of no outputs until it is set */
    struct lb_teacher_head head;
};

struct lb_teachers {
    struct lb_teachers_options options;
    struct lb_client *http;
    struct lb_cache *cache;
    struct teacher *teachers;
    unsigned n;
    struct lb_asker *asker; /* from the first submit on */
    struct lb_arena arena;  /* options' strings */
};

static uint64_t timeout_ns(const struct lb_teachers *teachers) {
    double seconds = teachers->options.timeout > 0 ? teachers->options.timeout : 60;
    return (uint64_t)(seconds * (double)LB_SECOND_NS);
}

static uint64_t give_up_ns(const struct lb_teachers *teachers) {
    return (uint64_t)(teachers->options.give_up_after * (double)LB_SECOND_NS);
}

static struct lb_contact contact_of(const struct lb_teachers *teachers, const struct teacher *teacher,
                                    int replica) {
    uint64_t timeout = timeout_ns(teachers);
    return (struct lb_contact){.http = teachers->http,
                               .name = teacher->label,
                               .base = teacher->urls[replica],
                               .token = teacher->token,
                               .timeout_ns = timeout < CONTACT_TIMEOUT_NS ? timeout : CONTACT_TIMEOUT_NS,
                               .stop = teachers->options.stop};
}

/* Whether asking again may help. */
static bool is_transient(enum lb_status status) {
    return status == LB_E_UNAVAILABLE || status == LB_E_TIMEOUT || status == LB_E_INTERNAL;
}

/* ---- waiting for a teacher ---- */

/* Between attempts to reach a teacher: how long it has been, how long the next pause is, when it was last
 * spoken of. */
struct patience {
    uint64_t began_ns, told_ns, pause_ns;
};

/* After a failed attempt: pauses and returns LB_OK when another is to be made, else the status to end with. A
 * daemon of our own that lives is loading, however long that takes. */
static enum lb_status be_patient(const struct lb_teachers *teachers, const struct teacher *teacher,
                                 struct patience *patience, const struct lb_detail *why,
                                 struct lb_detail *detail) {
    uint64_t now = lb_now_ns();
    struct lb_detail ended = {0};
    if (teacher->local && lb_local_check(teacher->local, &ended)) {
        return lb_fail(detail, ended.code, "%s", ended.text);
    }
    if (!teacher->local && teachers->options.on_lost != LB_LOST_WAIT && give_up_ns(teachers) != 0 &&
        now - patience->began_ns > give_up_ns(teachers)) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "%s; no answer for %.0f s", why->text,
                       (double)(now - patience->began_ns) / (double)LB_SECOND_NS);
    }
    if (now - patience->began_ns > LB_SECOND_NS &&
        (!patience->told_ns || now - patience->told_ns > TOLD_EVERY_NS)) {
        patience->told_ns = now;
        lb_log(LB_LOG_WARN, "teacher_lost", "teacher=%s for_s=%.0f error=\"%s\"", teacher->is->name,
               (double)(now - patience->began_ns) / (double)LB_SECOND_NS, why->text);
    }
    for (uint64_t until = now + patience->pause_ns; lb_now_ns() < until;) {
        if (teachers->options.stop && *teachers->options.stop) {
            return lb_fail(detail, LB_E_CANCELLED, "stopped while waiting for %s", teacher->label);
        }
        lb_sleep_ns(20 * LB_MS_NS);
    }
    patience->pause_ns = patience->pause_ns * 2 < LONGEST_WAIT_NS ? patience->pause_ns * 2 : LONGEST_WAIT_NS;
    return LB_OK;
}

static struct patience new_patience(void) {
    return (struct patience){.began_ns = lb_now_ns(), .pause_ns = FIRST_WAIT_NS};
}

/* ---- what a teacher says of itself ---- */

/* The blob's name of a teacher's info: what the recipe says, since the teacher itself may be away. */
static char *info_name(const struct teacher *teacher) {
    const struct lb_teacher_address *is = teacher->is;
    uint8_t hash[LB_SHA256_BYTES];
    char hex[LB_SHA256_HEX];
    struct lb_buf buf;
    lb_buf_init(&buf, 1u << 20);
    lb_buf_printf(&buf, "%s\n%s\n%s", is->name, is->url, is->model ? is->model : "");
    lb_sha256(buf.data ? buf.data : "", buf.len, hash);
    lb_buf_finish(&buf);
    lb_hex(hash, sizeof hash, hex);
    lb_buf_init(&buf, 256);
    lb_buf_printf(&buf, "info:%s", hex);
    return lb_buf_take(&buf, NULL);
}

static void remember(const struct lb_teachers *teachers, const char *name, const void *bytes, size_t len) {
    struct lb_detail detail = {0};
    enum lb_status status =
        teachers->cache && name ? lb_cache_put_blob(teachers->cache, name, bytes, len, &detail) : LB_OK;
    if (status != LB_OK) {
        lb_log(LB_LOG_WARN, "cache_not_written", "error=\"%s\"",
               detail.code ? detail.text : lb_status_name(status));
    }
}

/* The info from the cache; false when it is not there. */
static bool recall_info(const struct lb_teachers *teachers, struct teacher *teacher) {
    char *name = teachers->cache ? info_name(teacher) : NULL;
    struct lb_buf text;
    lb_buf_init(&text, MAX_INFO_BYTES);
    bool found = name && !lb_cache_get_blob(teachers->cache, name, &text, NULL) && text.len &&
                 !teacher->dialect->info_read(text.data, text.len, teacher->label, &teacher->info, NULL);
    teacher->info.any_compute = teachers->options.allow_other_kernels;
    lb_buf_finish(&text);
    lb_free(name);
    return found;
}

static enum lb_status ask_info(const struct lb_teachers *teachers, const struct teacher *teacher, int replica,
                               struct lb_buf *text, struct lb_teacher_info *out, struct lb_detail *detail) {
    struct lb_contact contact = contact_of(teachers, teacher, replica);
    /* A daemon of ours has its own name for its only one. */
    const char *model = teacher->local ? NULL : teacher->is->model;
    return teacher->dialect->info(&contact, model, text, out, detail);
}

static const char *or_unknown(const char *text) {
    return *text ? text : "unknown";
}

/* Replica r says this of itself; the first that answered has spoken for all. */
static enum lb_status agree(const struct lb_teachers *teachers, const struct teacher *teacher, int first,
                            int r, const struct lb_teacher_info *info, struct lb_detail *detail) {
    const struct lb_teacher_info *said = &teacher->info;
    if (strcmp(info->fingerprint, said->fingerprint)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s: its replicas serve different models: %s has fingerprint %s, %s has %s; serve the same "
            "files everywhere",
            teacher->label, teacher->urls[first], said->fingerprint, teacher->urls[r], info->fingerprint);
    }
    if (teachers->options.allow_other_kernels) {
        if (strcmp(info->compute, said->compute) || info->batch_dependent) {
            lb_log(LB_LOG_WARN, "other_kernels",
                   "teacher=%s url=\"%s\" compute=%.16s kernels=\"%s\" batch_invariant=%s first=%.16s",
                   teacher->is->name, teacher->urls[r], or_unknown(info->compute), info->kernels,
                   info->batch_dependent ? "false" : "true", or_unknown(said->compute));
        }
        return LB_OK;
    }
    if (strcmp(info->compute, said->compute)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s: its replicas compute different bits: %s has compute %.16s (%s), %s has %.16s (%s); "
            "give all the same kernels, or set allow_other_kernels: true",
            teacher->label, teacher->urls[first], or_unknown(said->compute), or_unknown(said->kernels),
            teacher->urls[r], or_unknown(info->compute), or_unknown(info->kernels));
    }
    if (info->batch_dependent) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s: %s says batch_invariant: false (%s): its answers depend on what else it computes "
                       "at the time, so no run on them can be repeated or resumed to the same bits; set "
                       "allow_other_kernels: true to train all the same",
                       teacher->label, teacher->urls[r], or_unknown(info->kernels));
    }
    return LB_OK;
}

/* One round over all replicas. LB_OK when at least one answered; they must agree. Others are set aside. */
static enum lb_status ask_replicas(const struct lb_teachers *teachers, struct teacher *teacher,
                                   struct lb_detail *detail) {
    struct lb_detail away = {0}, refused = {0};
    int first = -1;
    for (int r = 0; r < teacher->n_urls; r++) {
        struct lb_buf text;
        struct lb_teacher_info info;
        struct lb_detail why = {0};
        lb_buf_init(&text, MAX_INFO_BYTES);
        enum lb_status status = ask_info(teachers, teacher, r, &text, &info, &why);
        if (status == LB_OK && first < 0) {
            char *name = info_name(teacher);
            remember(teachers, name, text.data, text.len);
            lb_free(name);
            teacher->info = info;
            teacher->info.any_compute = teachers->options.allow_other_kernels;
            first = r;
        }
        lb_buf_finish(&text);
        teacher->reached[r] = status == LB_OK;
        if (status == LB_OK && (status = agree(teachers, teacher, first, r, &info, detail)) != LB_OK) {
            return status;
        }
        if (status == LB_E_CANCELLED) {
            return lb_fail(detail, status, "%s", why.text);
        }
        if (status != LB_OK) { /* what may pass is better news than what may not */
            struct lb_detail *kept = is_transient(status) ? &away : &refused;
            lb_fail(kept, status, "%s", why.text);
            lb_log(teacher->n_urls > 1 ? LB_LOG_WARN : LB_LOG_DEBUG, "replica_aside",
                   "teacher=%s url=\"%s\" error=\"%s\"", teacher->is->name, teacher->urls[r], why.text);
        }
    }
    const struct lb_detail *why = away.code != LB_OK ? &away : &refused;
    return first >= 0 ? LB_OK : lb_fail(detail, why->code, "%s", why->text);
}

/* Reaches a teacher, or takes what the cache remembers of it when it is away. */
static enum lb_status meet(const struct lb_teachers *teachers, struct teacher *teacher,
                           struct lb_detail *detail) {
    struct patience patience = new_patience();
    for (;;) {
        struct lb_detail why = {0};
        enum lb_status status = ask_replicas(teachers, teacher, &why);
        if (status == LB_OK) {
            return LB_OK;
        }
        if (!is_transient(status)) {
            return lb_fail(detail, status, "%s", why.text);
        }
        if (recall_info(teachers, teacher)) {
            lb_log(LB_LOG_WARN, "teacher_offline",
                   "teacher=%s then=\"answers come from the cache\" error=\"%s\"", teacher->is->name,
                   why.text);
            return LB_OK;
        }
        status = be_patient(teachers, teacher, &patience, &why, detail);
        if (status != LB_OK) {
            return status;
        }
    }
}

/* ---- opening ---- */

/* Where a local daemon's log is kept. Heap; NULL: nowhere. */
static char *log_path(const struct lb_teachers *teachers, const char *name) {
    const char *dir = teachers->options.log_dir;
    char *path = NULL;
    if (dir && !access(dir, W_OK)) {
        struct lb_buf buf;
        lb_buf_init(&buf, 8192);
        lb_buf_printf(&buf, "%s/limbeckd-%s.log", dir, name);
        path = lb_buf_take(&buf, NULL);
    }
    return path;
}

static enum lb_status start_local(const struct lb_teachers *teachers, struct teacher *teacher,
                                  struct lb_detail *detail) {
    char *log = log_path(teachers, teacher->is->name);
    enum lb_status status =
        lb_local_start(teacher->is->name, teacher->is->url + strlen("local:"), log, &teacher->local, detail);
    lb_free(log);
    return status;
}

static bool is_local(const struct lb_teacher_address *is) {
    return !strncmp(is->url, "local:", strlen("local:"));
}

/* Everything about a teacher that needs no network; a local daemon is started, but not waited for. */
static enum lb_status prepare(const struct lb_teachers *teachers, const struct lb_teacher_address *is,
                              struct teacher *teacher, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    teacher->is = is;
    teacher->dialect = lb_dialect_get(is->protocol);
    snprintf(teacher->label, sizeof teacher->label, "teacher %s", is->name);
    teacher->n_urls = 1 + (int)is->n_replicas;
    if (teacher->n_urls > LB_POOL_MAX_REPLICAS) {
        return lb_fail(detail, LB_E_LIMIT, "%s has %u replicas, at most %d are possible", teacher->label,
                       is->n_replicas, LB_POOL_MAX_REPLICAS - 1);
    }
    teacher->urls = lb_calloc((size_t)teacher->n_urls, sizeof *teacher->urls);
    teacher->reached = lb_calloc((size_t)teacher->n_urls, sizeof *teacher->reached);
    if (!teacher->urls || !teacher->reached) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for %s", teacher->label);
    }
    teacher->urls[0] = is->url;
    for (unsigned r = 0; r < is->n_replicas; r++) {
        teacher->urls[r + 1] = is->replicas[r];
        status = status != LB_OK ? status : lb_url_check(is->replicas[r], detail);
    }
    if (status == LB_OK && is->token_file) {
        status = lb_token_read(is->token_file, &teacher->own_token, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "%s: token_file", teacher->label);
        }
        teacher->token = teacher->own_token;
    }
    if (status == LB_OK && !is_local(is)) {
        status = lb_url_check(is->url, detail);
    } else if (status == LB_OK && teacher->n_urls > 1) {
        status = lb_fail(detail, LB_E_ARG, "%s: a local: teacher has no replicas", teacher->label);
    } else if (status == LB_OK) {
        struct lb_detail why = {0};
        status = start_local(teachers, teacher, &why);
        if (status == LB_E_NOTFOUND &&
            recall_info(teachers, teacher)) { /* its files are gone, its answers are here */
            lb_log(LB_LOG_WARN, "teacher_offline", "teacher=%s error=\"%s\"", is->name, why.text);
            return LB_OK;
        }
        status = status != LB_OK ? lb_fail(detail, status, "%s", why.text) : LB_OK;
    }
    return status;
}

static enum lb_status meet_all(struct lb_teachers *teachers, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (unsigned k = 0; k < teachers->n && status == LB_OK; k++) { /* all local ones load at the same time */
        status = prepare(teachers, &teachers->options.teachers[k], &teachers->teachers[k], detail);
    }
    for (unsigned k = 0; k < teachers->n && status == LB_OK; k++) {
        struct teacher *teacher = &teachers->teachers[k];
        if (teacher->local) {
            status = lb_local_wait(teacher->local, teachers->options.stop, detail);
            teacher->urls[0] = lb_local_url(teacher->local);
            teacher->token = lb_local_token(teacher->local);
        }
        if (status == LB_OK && (teacher->local || !is_local(teacher->is))) {
            status = meet(teachers, teacher, detail);
        }
    }
    return status;
}

static const char *copy(struct lb_arena *arena, const char *text, bool *bad) {
    const char *copied = text ? lb_arena_strdup(arena, text) : NULL;
    *bad = *bad || (text && !copied);
    return copied;
}

/* The caller's options, so that nothing of them need outlive the call. */
static bool copy_options(const struct lb_teachers_options *from, struct lb_arena *arena,
                         struct lb_teachers_options *to) {
    struct lb_teacher_address *addresses = lb_arena_array(arena, from->n_teachers, sizeof *addresses);
    bool bad = !addresses;
    for (unsigned k = 0; !bad && k < from->n_teachers; k++) {
        const struct lb_teacher_address *is = &from->teachers[k];
        const char **replicas = lb_arena_array(arena, is->n_replicas, sizeof *replicas);
        bad = !replicas;
        for (unsigned r = 0; !bad && r < is->n_replicas; r++) {
            replicas[r] = copy(arena, is->replicas[r], &bad);
        }
        addresses[k] = (struct lb_teacher_address){.name = copy(arena, is->name, &bad),
                                                   .url = copy(arena, is->url, &bad),
                                                   .model = copy(arena, is->model, &bad),
                                                   .replicas = replicas,
                                                   .n_replicas = is->n_replicas,
                                                   .token_file = copy(arena, is->token_file, &bad),
                                                   .protocol = is->protocol};
    }
    *to = *from;
    to->teachers = addresses;
    to->cache_dir = copy(arena, from->cache_dir, &bad);
    to->log_dir = copy(arena, from->log_dir, &bad);
    return !bad;
}

enum lb_status lb_teachers_open(const struct lb_teachers_options *options, struct lb_teachers **out,
                                struct lb_detail *detail) {
    struct lb_teachers *teachers = lb_calloc(1, sizeof *teachers);
    if (!teachers) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for teachers");
    }
    lb_arena_init(&teachers->arena, MAX_OPTIONS_BYTES);
    if (!copy_options(options, &teachers->arena, &teachers->options)) {
        lb_teachers_close(teachers);
        return lb_fail(detail, LB_E_NOMEM, "out of memory for teachers");
    }
    teachers->n = options->n_teachers;
    teachers->teachers = lb_calloc(teachers->n ? teachers->n : 1, sizeof *teachers->teachers);
    enum lb_status status = LB_OK;
    if (!teachers->teachers) {
        teachers->n = 0;
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for teachers");
    }
    status = status != LB_OK ? status : lb_client_create(&teachers->http, detail);
    if (status == LB_OK && options->cache_dir) {
        struct lb_detail why = {0};
        if (lb_cache_open(options->cache_dir, options->cache_max_bytes, &teachers->cache, &why) != LB_OK) {
            lb_log(LB_LOG_WARN, "no_cache", "then=\"training goes on without it\" error=\"%s\"", why.text);
        }
    }
    status = status != LB_OK ? status : meet_all(teachers, detail);
    if (status != LB_OK) {
        lb_teachers_close(teachers);
        return status;
    }
    *out = teachers;
    return LB_OK;
}

void lb_teachers_close(struct lb_teachers *teachers) {
    if (!teachers) {
        return;
    }
    lb_asker_destroy(teachers->asker);
    lb_client_destroy(teachers->http);
    lb_cache_close(teachers->cache);
    for (unsigned k = 0; k < teachers->n; k++) {
        struct teacher *teacher = &teachers->teachers[k];
        lb_local_stop(teacher->local);
        lb_teacher_head_finish(&teacher->head);
        lb_free(teacher->own_token);
        lb_free(teacher->urls);
        lb_free(teacher->reached);
    }
    lb_free(teachers->teachers);
    lb_arena_finish(&teachers->arena);
    lb_free(teachers);
}

unsigned lb_teachers_count(const struct lb_teachers *teachers) {
    return teachers->n;
}

const struct lb_teacher_info *lb_teachers_info(const struct lb_teachers *teachers, unsigned k) {
    return &teachers->teachers[k].info;
}

/* ---- files of a teacher: its head, its tokenizer ---- */

/* Asks one replica after the other for the file, with the recipe's patience. */
static enum lb_status download(const struct lb_teachers *teachers, const struct teacher *teacher,
                               enum lb_path which, const char *path, struct lb_buf *out,
                               struct lb_detail *detail) {
    struct patience patience = new_patience();
    for (int r = 0;; r = (r + 1) % teacher->n_urls) {
        struct lb_contact contact = contact_of(teachers, teacher, r);
        struct lb_detail why = {0};
        contact.timeout_ns = timeout_ns(teachers);
        enum lb_status status = lb_contact_get(&contact, path, out, NULL, &why);
        bool whole = true;
        if (status == LB_OK && which == LB_PATH_HEAD) {
            status = teacher->dialect->head_arrived(out->data, out->len, teacher->urls[r], &why);
            whole = status == LB_OK;
        }
        if (status == LB_OK) {
            return LB_OK;
        }
        lb_buf_reset(out);
        if (whole && !is_transient(status)) {
            return lb_fail(detail, status, "%s", why.text);
        }
        if (r == teacher->n_urls - 1) {
            status = be_patient(teachers, teacher, &patience, &why, detail);
            if (status != LB_OK) {
                return status;
            }
        }
    }
}

/* The file from the cache or from the teacher: its head, its tokenizer. */
static enum lb_status fetch(const struct lb_teachers *teachers, const struct teacher *teacher,
                            enum lb_path which, bool again, struct lb_buf *out, struct lb_detail *detail) {
    const char *what = which == LB_PATH_HEAD ? "head" : "tokenizer";
    char name[LB_SHA256_HEX + 32];
    snprintf(name, sizeof name, "%s:%s", what, teacher->info.fingerprint);
    if (teachers->cache && !again && !lb_cache_get_blob(teachers->cache, name, out, NULL) && out->len) {
        return LB_OK;
    }
    lb_buf_reset(out);
    if (!*teacher->urls[0] || (is_local(teacher->is) && !teacher->local)) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "%s is away and its %s is not in the cache", teacher->label,
                       what);
    }
    char *path = NULL;
    enum lb_status status = teacher->dialect->path(&teacher->info, which, &path, detail);
    status = status != LB_OK ? status : download(teachers, teacher, which, path, out, detail);
    lb_free(path);
    if (status == LB_OK) {
        remember(teachers, name, out->data, out->len);
    }
    return status;
}

enum lb_status lb_teachers_head(struct lb_teachers *teachers, unsigned k, const struct lb_teacher_head **out,
                                struct lb_detail *detail) {
    struct teacher *teacher = &teachers->teachers[k];
    enum lb_status status = LB_OK;
    for (int attempt = 0; !teacher->has_head && attempt < 2;
         attempt++) { /* a bad one in the cache is fetched anew */
        struct lb_buf bytes;
        struct lb_detail why = {0};
        lb_buf_init(&bytes, LB_MAX_RESPONSE_BYTES);
        status = fetch(teachers, teacher, LB_PATH_HEAD, attempt > 0, &bytes, &why);
        if (status != LB_OK) {
            attempt = 2;
        } else {
            status = teacher->dialect->head_read(bytes.data, bytes.len, &teacher->info, teacher->label,
                                                 &teacher->head, &why);
            if (status == LB_OK &&
                (status = lb_head_possible(&teacher->head, teacher->is->name, &why)) != LB_OK) {
                lb_teacher_head_finish(&teacher->head);
            }
            teacher->has_head = status == LB_OK;
        }
        lb_buf_finish(&bytes);
        if (status != LB_OK && (attempt > 0 || !teachers->cache)) {
            return lb_fail(detail, status, "%s", why.text);
        }
    }
    *out = &teacher->head;
    return LB_OK;
}

enum lb_status lb_teachers_tokenizer(struct lb_teachers *teachers, unsigned k, struct lb_buf *out,
                                     struct lb_detail *detail) {
    return fetch(teachers, &teachers->teachers[k], LB_PATH_TOKENIZER, false, out, detail);
}

/* ---- questions ---- */

enum lb_status lb_teachers_set_spec(struct lb_teachers *teachers, unsigned k, const struct lb_ask_spec *spec,
                                    struct lb_detail *detail) {
    struct teacher *teacher = &teachers->teachers[k];
    enum lb_status status = teacher->dialect->gives(&teacher->info, spec, teacher->is->name, detail);
    if (status == LB_OK) {
        teacher->spec = *spec;
    }
    return status;
}

static enum lb_status start_asker(struct lb_teachers *teachers, struct lb_detail *detail) {
    uint8_t jitter[LB_SHA256_BYTES];
    uint64_t now = lb_now_ns() ^ (uint64_t)getpid() << 32;
    lb_sha256(&now, sizeof now, jitter); /* spreads trainers in time; decides nothing about results */
    struct lb_asker_options options = {.http = teachers->http,
                                       .cache = teachers->cache,
                                       .on_lost = teachers->options.on_lost,
                                       .timeout_ns = timeout_ns(teachers),
                                       .give_up_ns = give_up_ns(teachers),
                                       .stop = teachers->options.stop};
    memcpy(&options.seed, jitter, sizeof options.seed);
    struct lb_asker_teacher *asked = lb_calloc(teachers->n ? teachers->n : 1, sizeof *asked);
    if (!asked) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for teachers");
    }
    for (unsigned k = 0; k < teachers->n; k++) {
        const struct teacher *teacher = &teachers->teachers[k];
        asked[k] = (struct lb_asker_teacher){.name = teacher->is->name,
                                             .dialect = teacher->dialect,
                                             .token = teacher->token,
                                             .urls = teacher->urls,
                                             .reached = teacher->reached,
                                             .n_urls = teacher->n_urls,
                                             .local = teacher->local,
                                             .info = teacher->info,
                                             .spec = teacher->spec};
    }
    enum lb_status status = lb_asker_create(&options, asked, teachers->n, &teachers->asker, detail);
    lb_free(asked);
    return status;
}

enum lb_status lb_teachers_submit(struct lb_teachers *teachers, int64_t number,
                                  const struct lb_sample *samples, int64_t n, const bool *wanted,
                                  struct lb_detail *detail) {
    return lb_teachers_submit_as(teachers, number, samples, n, wanted, NULL, detail);
}

enum lb_status lb_teachers_submit_as(struct lb_teachers *teachers, int64_t number,
                                     const struct lb_sample *samples, int64_t n, const bool *wanted,
                                     const struct lb_ask_spec *specs, struct lb_detail *detail) {
    if (!teachers->asker) {
        enum lb_status status = start_asker(teachers, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    return lb_asker_submit(teachers->asker, number, samples, n, wanted, specs, detail);
}

enum lb_status lb_teachers_take(struct lb_teachers *teachers, int64_t number,
                                const struct lb_answer *const **out_answers, struct lb_detail *detail) {
    if (!teachers->asker) {
        return lb_fail(detail, LB_E_ARG, "question %lld was not asked", (long long)number);
    }
    return lb_asker_take(teachers->asker, number, out_answers, detail);
}

void lb_teachers_release(struct lb_teachers *teachers, int64_t number) {
    if (teachers->asker) {
        lb_asker_release(teachers->asker, number);
    }
}

void lb_teachers_stats(const struct lb_teachers *teachers, struct lb_teachers_stats *out) {
    memset(out, 0, sizeof *out);
    if (teachers->asker) {
        lb_asker_stats(teachers->asker, out);
    }
}
