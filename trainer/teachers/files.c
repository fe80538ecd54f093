/* Files of a teacher: its head, its tokenizer. They come from the cache or from a replica, and are read
 * before they are kept. */
#include "common/base/mem.h"
#include "common/text/tokenizer.h"
#include "trainer/teachers/opened.h"
#include "trainer/wire/possible.h"

#include <stdio.h>
#include <string.h>

#define MAX_TOKENIZER ((size_t)256 << 20)
#define MAX_CONFIG ((size_t)64 << 20)

/* Reads the file's bytes, which came from `where`, into out. *damaged: they are not what was sent. */
typedef enum lb_status reads(const struct teacher *teacher, const struct lb_buf *bytes, const char *where,
                             void *out, bool *damaged, struct lb_detail *detail);

static enum lb_status read_head(const struct teacher *teacher, const struct lb_buf *bytes, const char *where,
                                void *out, bool *damaged, struct lb_detail *detail) {
    struct lb_teacher_head *head = out;
    enum lb_status status = teacher->dialect->head_arrived(bytes->data, bytes->len, where, detail);
    *damaged = status == LB_E_FORMAT;
    if (status != LB_OK) {
        return status;
    }
    status = teacher->dialect->head_read(bytes->data, bytes->len, &teacher->info, where, head, detail);
    if (status == LB_OK && (status = lb_head_possible(head, where, detail)) != LB_OK) {
        lb_teacher_head_finish(head);
    }
    return status;
}

/* No digest covers it, but its fingerprint is in the metadata. out: a tokenizer's place, or NULL. */
static enum lb_status read_tokenizer(const struct teacher *teacher, const struct lb_buf *bytes,
                                     const char *where, void *out, bool *damaged, struct lb_detail *detail) {
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_tokenizer **keeps = out;
    const char *wanted = teacher->info.tokenizer_fingerprint;
    (void)damaged; /* it can't be told from a server's that serves another */
    enum lb_status status = lb_tokenizer_parse(bytes->data, bytes->len, where, &tokenizer, detail);
    if (status == LB_OK && *wanted && strcmp(lb_tokenizer_fingerprint(tokenizer), wanted) != 0) {
        status =
            lb_fail(detail, LB_E_FORMAT,
                    "%s: the tokenizer has fingerprint %.16s..., its metadata say %.16s...: something in "
                    "between changed it",
                    where, lb_tokenizer_fingerprint(tokenizer), wanted);
    }
    if (status == LB_OK && keeps) {
        *keeps = tokenizer;
        return LB_OK;
    }
    lb_tokenizer_destroy(tokenizer);
    return status;
}

/* A file that is downloaded: where it is, and who reads it to where. */
struct download {
    const char *path;
    reads *read;
    struct lb_buf *bytes;
    void *out;
};

/* One replica's file into bytes, and read. */
static enum lb_status get(const struct lb_teachers *teachers, const struct teacher *teacher, int replica,
                          void *context, bool *damaged, struct lb_detail *detail) {
    const struct download *d = context;
    struct lb_contact contact = lb_teacher_contact(teachers, teacher, replica);
    char where[400];
    contact.timeout_ns = lb_teachers_timeout_ns(teachers);
    lb_contact_where(&contact, where, sizeof where);
    enum lb_status status = lb_contact_get(&contact, d->path, d->bytes, NULL, detail);
    status = status == LB_OK ? d->read(teacher, d->bytes, where, d->out, damaged, detail) : status;
    if (status != LB_OK) {
        lb_buf_reset(d->bytes);
    }
    return status;
}

/* The file from the cache, or where that has none that can be read, from the teacher. */
static enum lb_status fetch(const struct lb_teachers *teachers, const struct teacher *teacher,
                            enum lb_path which, reads *read, struct lb_buf *bytes, void *out,
                            struct lb_detail *detail) {
    const char *what = which == LB_PATH_HEAD ? "head" : "tokenizer";
    char name[LB_SHA256_HEX + 32];
    bool damaged = false;
    snprintf(name, sizeof name, "%s:%s", what, teacher->info.fingerprint);
    if (teachers->cache && !lb_cache_get_blob(teachers->cache, name, bytes, NULL) && bytes->len &&
        read(teacher, bytes, teacher->label, out, &damaged, NULL) == LB_OK) {
        return LB_OK;
    }
    lb_buf_reset(bytes);
    if (lb_teacher_is_away(teacher)) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "%s is away and its %s is not in the cache", teacher->label,
                       what);
    }
    char *path = NULL;
    enum lb_status status = teacher->dialect->path(&teacher->info, NULL, which, &path, detail);
    struct download d = {path, read, bytes, out};
    status = status != LB_OK ? status : lb_teacher_try(teachers, teacher, get, &d, detail);
    lb_free(path);
    if (status == LB_OK) {
        lb_teachers_remember(teachers, name, bytes->data, bytes->len);
    }
    return status;
}

/* Only the rows of the kept ids, in the order of theirs: they move forward, each before it is overwritten. */
static enum lb_status keep_rows(struct teacher *teacher, struct lb_detail *detail) {
    const struct lb_vocab_map *map = teacher->map;
    struct lb_teacher_head *head = &teacher->head;
    size_t width = (size_t)head->hidden_size;
    if (map->kept[map->n - 1] >= head->vocab_size) {
        return lb_fail(detail, LB_E_MISMATCH, "%s: its head has %lld rows, the trimmed tokenizer keeps id %d",
                       teacher->label, (long long)head->vocab_size, map->kept[map->n - 1]);
    }
    for (int32_t i = 0; i < map->n; i++) {
        memmove(head->weight + (size_t)i * width, head->weight + (size_t)map->kept[i] * width,
                width * sizeof *head->weight);
        if (head->bias) {
            head->bias[i] = head->bias[map->kept[i]];
        }
    }
    head->vocab_size = map->n;
    float *less = lb_realloc_array(head->weight, (size_t)map->n * width, sizeof *less);
    head->weight = less ? less : head->weight;
    return LB_OK;
}

static enum lb_status fetch_head(const struct lb_teachers *teachers, struct teacher *teacher,
                                 struct lb_detail *detail) {
    struct lb_buf bytes;
    lb_buf_init(&bytes, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = fetch(teachers, teacher, LB_PATH_HEAD, read_head, &bytes, &teacher->head, detail);
    lb_buf_finish(&bytes);
    return status;
}

/* The one that the recipe names, where the server's states go with it. */
static enum lb_status take_head(const struct lb_teachers *teachers, struct teacher *teacher,
                                struct lb_detail *detail) {
    if (teacher->is->naming) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: targets: final_hidden is what a limbeckd gives; a server whose tensors are named "
                       "gives logits: set targets: topk or logits",
                       teacher->label);
    }
    if (!teacher->from_file.weight) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: targets: final_hidden needs its output head, which a server of protocol: %s does "
                       "not serve: name the model's folder or .gguf file with head",
                       teacher->label, teacher->dialect->name);
    }
    enum lb_status status = lb_teacher_check_head(teachers, teacher, detail);
    if (status == LB_OK) {
        teacher->head = teacher->from_file;
        memset(&teacher->from_file, 0, sizeof teacher->from_file);
    }
    return status;
}

/* Who reads the states by the head takes both to be as wide. */
static enum lb_status check_width(const struct teacher *teacher, struct lb_detail *detail) {
    int64_t width = lb_info_state_width(&teacher->info, LB_OUT_HIDDEN_FINAL, 0);
    return width == 0 || width == teacher->head.hidden_size
               ? LB_OK
               : lb_fail(detail, LB_E_MISMATCH,
                         "%s: its final states have %lld numbers, its head reads %lld; one of them is "
                         "another model's",
                         teacher->label, (long long)width, (long long)teacher->head.hidden_size);
}

enum lb_status lb_teachers_head(struct lb_teachers *teachers, unsigned k, const struct lb_teacher_head **out,
                                struct lb_detail *detail) {
    struct teacher *teacher = &teachers->teachers[k];
    if (!teacher->has_head) {
        enum lb_status status = teacher->dialect->head_read ? fetch_head(teachers, teacher, detail)
                                                            : take_head(teachers, teacher, detail);
        if (status != LB_OK) {
            return status;
        }
        bool of_tokens = teacher->map && teacher->info.num_labels == 0;
        status = check_width(teacher, detail);
        status = status == LB_OK && of_tokens ? keep_rows(teacher, detail) : status;
        if (status != LB_OK) {
            lb_teacher_head_finish(&teacher->head);
            return status;
        }
        teacher->has_head = true;
    }
    *out = &teacher->head;
    return LB_OK;
}

enum lb_status lb_teachers_tokenizer(struct lb_teachers *teachers, unsigned k, struct lb_buf *out,
                                     struct lb_detail *detail) {
    struct teacher *teacher = &teachers->teachers[k];
    if (teacher->tokenizer) { /* that the recipe names */
        size_t len = 0;
        const char *json = lb_tokenizer_source(teacher->tokenizer, &len);
        return lb_buf_append(out, json, len) == LB_OK
                   ? LB_OK
                   : lb_fail(detail, lb_buf_status(out), "%s: no memory for its tokenizer", teacher->label);
    }
    return fetch(teachers, teacher, LB_PATH_TOKENIZER, read_tokenizer, out, NULL, detail);
}

enum lb_status lb_teachers_open_tokenizer(struct lb_teachers *teachers, unsigned k, const char *what,
                                          struct lb_tokenizer **out, struct lb_detail *detail) {
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_buf json, config;
    if (teachers->teachers[k].is->tokenizer) { /* another one of the same file, the caller's */
        return lb_tokenizer_open(teachers->teachers[k].is->tokenizer, out, detail);
    }
    lb_buf_init(&json, MAX_TOKENIZER);
    lb_buf_init(&config, MAX_CONFIG);
    enum lb_status status =
        fetch(teachers, &teachers->teachers[k], LB_PATH_TOKENIZER, read_tokenizer, &json, &tokenizer, detail);
    status = status == LB_OK ? lb_teachers_tokenizer_config(teachers, k, &config, detail) : status;
    if (status == LB_OK && config.len > 0) {
        status = lb_tokenizer_configure(tokenizer, config.data, config.len, what, detail);
    }
    lb_buf_finish(&json);
    lb_buf_finish(&config);
    if (status != LB_OK) {
        lb_tokenizer_destroy(tokenizer);
        return status;
    }
    *out = tokenizer;
    return LB_OK;
}
