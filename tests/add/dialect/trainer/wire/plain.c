/* The dialect plain: a server says in one line of text which model it has, and has no way to be asked more.
 */
#include "proto/plain.h"
#include "trainer/wire/dialect.h"

#include <stdio.h>
#include <string.h>

static enum lb_status info_read(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                                struct lb_detail *detail) {
    char line[2 * LB_MAX_NAME + 2], name[LB_MAX_NAME], fingerprint[LB_MAX_NAME];
    struct lb_teacher_info info = {0};
    snprintf(line, sizeof line, "%.*s", (int)(len < sizeof line ? len : sizeof line), (const char *)text);
    if (lb_plain_read(line, name, fingerprint) != LB_OK || strlen(fingerprint) >= sizeof info.fingerprint) {
        return lb_fail(detail, LB_E_FORMAT, "%s: \"%.80s\" is not a name and a fingerprint", what, line);
    }
    memcpy(info.model, name, strlen(name) + 1);
    memcpy(info.fingerprint, fingerprint, strlen(fingerprint) + 1);
    *out = info;
    return LB_OK;
}

static enum lb_status info(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                           struct lb_teacher_info *out, struct lb_detail *detail) {
    char path[LB_MAX_NAME + 8];
    snprintf(path, sizeof path, "/plain/%s", model != NULL ? model : "");
    enum lb_status status = lb_contact_get(contact, path, text, NULL, detail);
    return status == LB_OK ? info_read(text->data, text->len, contact->name, out, detail) : status;
}

static enum lb_status same(const struct lb_teacher_info *known, const void *text, size_t len,
                           const char *where, char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail) {
    struct lb_teacher_info now;
    out_id[0] = '\0';
    enum lb_status status = info_read(text, len, where, &now, detail);
    return status != LB_OK || strcmp(now.fingerprint, known->fingerprint) == 0
               ? status
               : lb_fail(detail, LB_E_MISMATCH, "%s serves another model now", where);
}

static enum lb_status models(const struct lb_contact *contact,
                             void (*each)(void *user, const char *name, const char *version,
                                          const char *state),
                             void *user, struct lb_detail *detail) {
    (void)each;
    (void)user;
    return lb_fail(detail, LB_E_UNSUPPORTED, "%s: protocol plain lists no models", contact->name);
}

static enum lb_status path(const struct lb_teacher_info *teacher, const struct lb_ask_spec *spec,
                           enum lb_path which, char **out, struct lb_detail *detail) {
    (void)spec;
    (void)which;
    (void)out;
    return lb_fail(detail, LB_E_UNSUPPORTED, "%s: protocol plain says which model there is, no more",
                   teacher->model);
}

static enum lb_status gives(const struct lb_teacher_info *teacher, const struct lb_ask_spec *spec,
                            const char *name, struct lb_detail *detail) {
    (void)teacher;
    (void)spec;
    return lb_fail(detail, LB_E_ARG, "teacher %s: protocol plain gives no outputs", name);
}

extern const struct lb_dialect lb_dialect_plain;
const struct lb_dialect lb_dialect_plain = {.name = "plain",
                                            .mark = "/plain",
                                            .models = models,
                                            .info = info,
                                            .info_read = info_read,
                                            .same = same,
                                            .path = path,
                                            .gives = gives};
