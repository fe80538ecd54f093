#include "trainer/teachers/teachers.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/opened.h"
#include "trainer/teachers/pool.h"
#include "trainer/wire/url.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_OPTIONS_BYTES ((size_t)16 << 20)

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
    size_t scheme;
    lb_url_scheme(teacher->is->url, &scheme);
    enum lb_status status =
        lb_local_start(teacher->is->name, teacher->is->url + scheme, log, &teacher->local, detail);
    lb_free(log);
    return status;
}

/* Everything about a teacher that needs no network; a local daemon is started, but not waited for. */
static enum lb_status prepare(const struct lb_teachers *teachers, const struct lb_teacher_address *is,
                              struct teacher *teacher, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    teacher->is = is;
    teacher->dialect = lb_dialect_of(is->protocol, is->naming);
    snprintf(teacher->label, sizeof teacher->label, "teacher %s", is->name);
    teacher->n_urls = 1 + (int)is->n_replicas;
    if (teacher->n_urls > LB_POOL_MAX_REPLICAS) {
        return lb_fail(detail, LB_E_LIMIT, "%s has %u replicas, at most %d are possible", teacher->label,
                       is->n_replicas, LB_POOL_MAX_REPLICAS - 1);
    }
    teacher->urls = lb_calloc((size_t)teacher->n_urls, sizeof *teacher->urls);
    teacher->reached = lb_calloc((size_t)teacher->n_urls, sizeof *teacher->reached);
    teacher->ids = lb_calloc((size_t)teacher->n_urls, sizeof *teacher->ids);
    if (!teacher->urls || !teacher->reached || !teacher->ids) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for %s", teacher->label);
    }
    teacher->urls[0] = is->url;
    for (unsigned r = 0; r < is->n_replicas; r++) {
        teacher->urls[r + 1] = is->replicas[r];
        status = status != LB_OK ? status : lb_url_check(is->replicas[r], false, detail);
    }
    if (status == LB_OK && is->token_file) {
        status = lb_token_read(is->token_file, &teacher->own_token, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "%s: token_file", teacher->label);
        }
        teacher->token = teacher->own_token;
    }
    status = status != LB_OK ? status : lb_teacher_open_files(teacher, detail);
    if (status == LB_OK && !lb_teacher_is_local(is)) {
        status = lb_url_check(is->url, false, detail);
    } else if (status == LB_OK && teacher->n_urls > 1) {
        status = lb_fail(detail, LB_E_ARG, "%s: a local: teacher has no replicas", teacher->label);
    } else if (status == LB_OK) {
        struct lb_detail why = {0};
        status = start_local(teachers, teacher, &why);
        if (status == LB_E_NOTFOUND &&
            lb_teacher_recall(teachers, teacher)) { /* its files are gone, its answers are here */
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
        if (status == LB_OK && (teacher->local || !lb_teacher_is_local(teacher->is))) {
            status = lb_teacher_meet(teachers, teacher, detail);
        }
    }
    return status;
}

static const char *copy(struct lb_arena *arena, const char *text, bool *bad) {
    const char *copied = text ? lb_arena_strdup(arena, text) : NULL;
    *bad = *bad || (text && !copied);
    return copied;
}

static const struct lb_naming *copy_naming(struct lb_arena *arena, const struct lb_naming *from, bool *bad) {
    if (!from) {
        return NULL;
    }
    struct lb_naming *naming = lb_arena_zarray(arena, 1, sizeof *naming);
    struct lb_named_value *extra = lb_arena_zarray(arena, from->n_extra, sizeof *extra);
    *bad = *bad || !naming || !extra;
    for (size_t i = 0; !*bad && i < from->n_extra; i++) {
        extra[i].name = copy(arena, from->extra[i].name, bad);
        extra[i].value = copy(arena, from->extra[i].value, bad);
    }
    if (naming) {
        *naming = (struct lb_naming){.input_ids = copy(arena, from->input_ids, bad),
                                     .lengths = copy(arena, from->lengths, bad),
                                     .attention_mask = copy(arena, from->attention_mask, bad),
                                     .logits = copy(arena, from->logits, bad),
                                     .extra = extra,
                                     .n_extra = from->n_extra};
    }
    return naming;
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
                                                   .head = copy(arena, is->head, &bad),
                                                   .tokenizer = copy(arena, is->tokenizer, &bad),
                                                   .most_top_k = is->most_top_k,
                                                   .naming = copy_naming(arena, is->naming, &bad),
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
        lb_teacher_head_finish(&teacher->from_file);
        lb_tokenizer_destroy(teacher->tokenizer);
        lb_free(teacher->own_token);
        lb_free(teacher->urls);
        lb_free(teacher->reached);
        lb_free(teacher->ids);
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

void lb_teachers_assume_vocab(struct lb_teachers *teachers, unsigned k, int64_t v) {
    struct lb_teacher_info *info = &teachers->teachers[k].info;
    if (info->vocab_size == 0 && info->num_labels == 0) {
        info->vocab_size = v;
    }
}

int64_t lb_teachers_named_tokens(const struct lb_teachers *teachers, unsigned k) {
    const struct lb_tokenizer *named = teachers->teachers[k].tokenizer;
    return named ? lb_tokenizer_vocab_size(named) : 0;
}

/* ---- questions ---- */

enum lb_status lb_teachers_set_map(struct lb_teachers *teachers, unsigned k, const struct lb_vocab_map *map,
                                   struct lb_detail *detail) {
    struct teacher *teacher = &teachers->teachers[k];
    if (teacher->has_head || teachers->asker) {
        return lb_fail(detail, LB_E_ARG, "%s was asked before it was said in which ids", teacher->label);
    }
    teacher->map = map;
    return LB_OK;
}

enum lb_status lb_teachers_gives(const struct lb_teachers *teachers, unsigned k,
                                 const struct lb_ask_spec *spec, struct lb_detail *detail) {
    const struct teacher *teacher = &teachers->teachers[k];
    return teacher->dialect->gives(&teacher->info, spec, teacher->is->name, detail);
}

enum lb_status lb_teachers_set_spec(struct lb_teachers *teachers, unsigned k, const struct lb_ask_spec *spec,
                                    struct lb_detail *detail) {
    enum lb_status status = lb_teachers_gives(teachers, k, spec, detail);
    if (status == LB_OK) {
        teachers->teachers[k].spec = *spec;
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
                                       .timeout_ns = lb_teachers_timeout_ns(teachers),
                                       .give_up_ns = lb_teachers_give_up_ns(teachers),
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
                                             .ids = (const char(*)[LB_MAX_MODEL_ID])teacher->ids,
                                             .map = teacher->map,
                                             .spec = teacher->spec};
    }
    enum lb_status status = lb_asker_create(&options, asked, teachers->n, &teachers->asker, detail);
    lb_free(asked);
    return status;
}

int64_t lb_teachers_next(const struct lb_teachers *teachers) {
    return teachers->asker ? lb_asker_next(teachers->asker) : 0;
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
    out->cached = teachers->cache != NULL;
}
