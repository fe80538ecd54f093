#include "trainer/teachers/written.h"

#include "common/base/mem.h"
#include "trainer/teachers/opened.h"
#include "trainer/wire/said.h"

#include <stdio.h>
#include <string.h>

#define MAX_ASK ((size_t)64 << 20)

bool lb_teachers_writes(const struct lb_teachers *teachers, unsigned k) {
    const struct teacher *teacher = &teachers->teachers[k];
    return teacher->is->protocol == LB_PROTOCOL_OIP && teacher->is->naming == NULL;
}

/* The name that a text has in the cache: of all that decides it. */
static bool name_of(const struct teacher *teacher, const struct lb_text_args *args,
                    const struct lb_text_prompt *prompt, char out[LB_SHA256_HEX + 8]) {
    char identity[LB_IDENTITY_TEXT], hex[LB_SHA256_HEX];
    uint8_t digest[LB_SHA256_BYTES];
    uint64_t numbers[2];
    struct lb_sha256 *hash = lb_sha256_create();
    if (hash == NULL) {
        return false;
    }
    lb_info_identity(&teacher->info, identity);
    memcpy(&numbers[0], &args->temperature, sizeof args->temperature);
    memcpy(&numbers[1], &args->top_p, sizeof args->top_p);
    lb_sha256_update(hash, identity, strlen(identity) + 1);
    lb_sha256_u64(hash, (uint64_t)args->max_tokens);
    lb_sha256_u64(hash, numbers[0]);
    lb_sha256_u64(hash, numbers[1]);
    lb_sha256_u64(hash, args->seed);
    lb_sha256_update(hash, prompt->ids, (size_t)prompt->n * sizeof *prompt->ids);
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, hex);
    snprintf(out, LB_SHA256_HEX + 8, "text:%s", hex);
    return true;
}

/* Whether the cache has the text; it is in out then. */
static bool recall(const struct lb_teachers *teachers, const struct teacher *teacher,
                   const struct lb_text_args *args, const char *name, struct lb_arena *arena,
                   struct lb_text *out) {
    struct lb_buf bytes;
    lb_buf_init(&bytes, (size_t)args->max_tokens * sizeof(int32_t));
    size_t n = 0;
    int32_t *ids = NULL;
    if (teachers->cache != NULL && lb_cache_get_blob(teachers->cache, name, &bytes, NULL) == LB_OK) {
        n = bytes.len / sizeof *ids;
        ids = n > 0 && bytes.len % sizeof *ids == 0 ? lb_arena_array(arena, n, sizeof *ids) : NULL;
    }
    if (ids != NULL) {
        memcpy(ids, bytes.data, bytes.len);
    }
    for (size_t t = 0; ids != NULL && t < n; t++) {
        ids = ids[t] >= 0 && ids[t] < teacher->info.vocab_size ? ids : NULL;
    }
    lb_buf_finish(&bytes);
    *out = (struct lb_text){ids, (int64_t)n};
    return ids != NULL;
}

/* A request, and where what is written goes. */
struct request {
    const char *body;
    const struct lb_text_args *args;
    int64_t n;
    struct lb_arena *arena;
    struct lb_text *out; /* [n] */
};

/* To one replica. Each text has the time that an answer has. */
static enum lb_status ask(const struct lb_teachers *teachers, const struct teacher *teacher, int replica,
                          void *context, bool *damaged, struct lb_detail *detail) {
    const struct request *request = context;
    struct lb_contact contact = lb_teacher_contact(teachers, teacher, replica);
    struct lb_call call;
    contact.timeout_ns = (uint64_t)request->n * lb_teachers_timeout_ns(teachers);
    enum lb_status status = lb_contact_call(&contact, &call, LB_PATH_TEXTS, request->body, 0, detail);
    if (status == LB_OK) {
        status =
            lb_texts_read(call.answer.data != NULL ? call.answer.data : "", call.answer.len, &teacher->info,
                          request->args, request->n, request->arena, request->out, detail);
        *damaged = status == LB_E_FORMAT;
        if (status != LB_OK) {
            lb_said_by(&contact, detail);
        }
    }
    lb_call_finish(&call);
    return status;
}

enum lb_status lb_teachers_write(struct lb_teachers *teachers, unsigned k, const struct lb_text_args *args,
                                 const struct lb_text_prompt *prompts, int64_t n, struct lb_arena *arena,
                                 struct lb_text *out, struct lb_detail *detail) {
    const struct teacher *teacher = &teachers->teachers[k];
    struct lb_text_prompt missing[LB_TEXTS_AT_ONCE];
    struct lb_text came[LB_TEXTS_AT_ONCE];
    int64_t at[LB_TEXTS_AT_ONCE], n_missing = 0;
    char names[LB_TEXTS_AT_ONCE][LB_SHA256_HEX + 8];
    if (n < 1 || n > LB_TEXTS_AT_ONCE) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %lld texts are not asked at once", teacher->label,
                       (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        if (!name_of(teacher, args, &prompts[i], names[i])) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for texts of %s", teacher->label);
        }
        if (!recall(teachers, teacher, args, names[i], arena, &out[i])) {
            at[n_missing] = i;
            missing[n_missing++] = prompts[i];
        }
    }
    if (n_missing == 0) {
        return LB_OK;
    }
    struct lb_buf body;
    lb_buf_init(&body, MAX_ASK);
    lb_texts_ask(&teacher->info, args, missing, n_missing, &body);
    enum lb_status status = lb_buf_append(&body, "", 1);
    if (status != LB_OK) {
        status = lb_fail(detail, status, "%s: a question of %lld prompts is too long%s", teacher->label,
                         (long long)n_missing, status == LB_E_NOMEM ? " for the memory that there is" : "");
    }
    if (status == LB_OK && lb_teacher_is_away(teacher)) {
        status =
            lb_fail(detail, LB_E_UNAVAILABLE,
                    "%s is away, and not all texts that it is to write are in the cache", teacher->label);
    }
    struct request request = {body.data, args, n_missing, arena, came};
    status = status == LB_OK ? lb_teacher_try(teachers, teacher, ask, &request, detail) : status;
    for (int64_t i = 0; status == LB_OK && i < n_missing; i++) {
        out[at[i]] = came[i];
        lb_teachers_remember(teachers, names[at[i]], came[i].ids, (size_t)came[i].n * sizeof *came[i].ids);
    }
    lb_buf_finish(&body);
    return status;
}
