/* What is remembered of teachers, in the cache or the run folder: what they said of themselves, for when they
 * are away; and the names by which the cache knows those that have no fingerprint. */
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/opened.h"
#include "trainer/wire/stated.h"

#include <stdio.h>
#include <string.h>

void lb_teachers_remember(const struct lb_teachers *teachers, const char *name, const void *bytes,
                          size_t len) {
    struct lb_detail detail = {0};
    enum lb_status status =
        teachers->cache && name ? lb_cache_put_blob(teachers->cache, name, bytes, len, &detail) : LB_OK;
    if (status != LB_OK) {
        lb_log(LB_LOG_WARN, "cache_not_written", "error=\"%s\"",
               detail.code ? detail.text : lb_status_name(status));
    }
}

/* ---- what they said ---- */

/* What the recipe says of its tensors, each text with its NUL. */
static void put_naming(struct lb_buf *out, const struct lb_naming *naming) {
    const char *const names[] = {naming->input_ids, naming->lengths, naming->attention_mask, naming->logits};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lb_buf_append(out, names[i] ? names[i] : "", names[i] ? strlen(names[i]) + 1 : 1);
    }
    for (size_t i = 0; i < naming->n_extra; i++) {
        lb_buf_append(out, naming->extra[i].name, strlen(naming->extra[i].name) + 1);
        lb_buf_append(out, naming->extra[i].value, strlen(naming->extra[i].value) + 1);
    }
}

/* The blob's name of a teacher's info: what the recipe says, since the teacher itself may be away. NULL
 * when out of memory. */
static char *info_name(const struct teacher *teacher) {
    const struct lb_teacher_address *is = teacher->is;
    uint8_t hash[LB_SHA256_BYTES];
    char hex[LB_SHA256_HEX];
    struct lb_buf buf;
    lb_buf_init(&buf, 1u << 20);
    lb_buf_printf(&buf, "%s\n%s\n%s", is->name, is->url, is->model ? is->model : "");
    if (is->naming) {
        put_naming(&buf, is->naming);
    }
    bool whole = lb_buf_status(&buf) == LB_OK;
    if (whole) {
        lb_sha256(buf.data, buf.len, hash);
    }
    lb_buf_finish(&buf);
    if (!whole) {
        return NULL;
    }
    lb_hex(hash, sizeof hash, hex);
    lb_buf_init(&buf, 256);
    lb_buf_printf(&buf, "info:%s", hex);
    return lb_buf_take(&buf, NULL);
}

void lb_teacher_remember(const struct lb_teachers *teachers, const struct teacher *teacher,
                         const struct lb_buf *text) {
    char *name = info_name(teacher);
    lb_teachers_remember(teachers, name, text->data, text->len);
    lb_free(name);
}

bool lb_teacher_recall(const struct lb_teachers *teachers, struct teacher *teacher) {
    char *name = teachers->cache ? info_name(teacher) : NULL;
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_INFO_BYTES);
    bool found = name && !lb_cache_get_blob(teachers->cache, name, &text, NULL) && text.len &&
                 !teacher->dialect->info_read(text.data, text.len, teacher->label, &teacher->info, NULL) &&
                 lb_teacher_complete(teachers, teacher, &teacher->info, NULL) == LB_OK;
    lb_buf_finish(&text);
    lb_free(name);
    return found;
}

/* ---- those that have no fingerprint ---- */

/* Where a run without a cache remembers it: in the run folder. Heap; NULL: nowhere. */
static char *stated_path(const struct lb_teachers *teachers, const struct teacher *teacher) {
    const char *dir = teachers->options.log_dir;
    char *path = NULL;
    if (!teachers->cache && dir && lb_is_dir(dir)) {
        struct lb_buf buf;
        lb_buf_init(&buf, 8192);
        lb_buf_printf(&buf, "%s/teacher-%s.json", dir, teacher->is->name);
        path = lb_buf_take(&buf, NULL);
    }
    return path;
}

/* What it said when it was first asked, into kept; false when nobody remembers. */
static bool recall(const struct lb_teachers *teachers, const char *name, const char *path,
                   struct lb_buf *kept) {
    if (teachers->cache) {
        return lb_cache_get_blob(teachers->cache, name, kept, NULL) == LB_OK && kept->len > 0;
    }
    return path && lb_file_exists(path) && lb_file_read(path, kept, NULL) == LB_OK && kept->len > 0;
}

static void remember(const struct lb_teachers *teachers, const char *name, const char *path,
                     const struct lb_buf *text) {
    struct lb_detail why = {0};
    lb_teachers_remember(teachers, name, text->data, text->len);
    if (path && lb_file_replace(path, text->data, text->len, &why) != LB_OK) {
        lb_log(LB_LOG_WARN, "teacher_not_remembered", "error=\"%s\"", why.text);
    }
}

enum lb_status lb_teacher_settle(const struct lb_teachers *teachers, const struct teacher *teacher,
                                 struct lb_buf *text, struct lb_teacher_info *info,
                                 struct lb_detail *detail) {
    char name[LB_SHA256_HEX + 16];
    struct lb_buf kept;
    struct lb_teacher_info then;
    if (!info->stated[0]) {
        return LB_OK;
    }
    snprintf(name, sizeof name, "stated:%s", info->stated);
    char *path = stated_path(teachers, teacher);
    lb_buf_init(&kept, LB_MAX_INFO_BYTES);
    enum lb_status status = LB_OK;
    bool known = recall(teachers, name, path, &kept) &&
                 teacher->dialect->info_read(kept.data, kept.len, teacher->label, &then, NULL) == LB_OK;
    bool alike = known && lb_stated_alike(&then, info);
    if (alike && (teachers->options.allow_other_kernels || strcmp(then.compute, info->compute) == 0)) {
        status = lb_stated_renew(kept.data, kept.len, text, detail);
        status = status != LB_OK
                     ? status
                     : teacher->dialect->info_read(text->data, text->len, teacher->label, info, detail);
    } else {
        if (alike) {
            lb_log(LB_LOG_WARN, "other_kernels",
                   "teacher=%s kernels=\"%s\" then=\"%s\" note=\"answers of then are not "
                   "used\"",
                   teacher->is->name, info->kernels, then.kernels);
        } else if (known && strcmp(then.stated, info->stated) == 0) {
            lb_log(
                LB_LOG_WARN, "another_model",
                "teacher=%s model=%s then=\"answers of the other are not used\" note=\"it says the same of "
                "itself as before, and answers otherwise\"",
                teacher->is->name, info->model);
        }
        remember(teachers, name, path, text);
    }
    lb_free(path);
    lb_buf_finish(&kept);
    return status;
}
