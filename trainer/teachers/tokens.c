/* Whether a server reads the ids that it is asked with, where it serves no tokenizer of its own but runs one.
 */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/opened.h"

#include <string.h>

/* What tokenizers differ in: words, numbers, blanks, other scripts, signs beyond the first plane. */
#define OTHER_SCRIPTS                                                                                        \
    "Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 \u2014 \u041f\u0440\u0438\u0432\u0435\u0442, "          \
    "\u4f60\u597d \U0001f642 caf\u00e9"
static const char *const texts[] = {"The quick brown fox, isn't it? 3.14159 or 271,828",
                                    "def f(x):\n\treturn  x**2   # \r\n\n", OTHER_SCRIPTS,
                                    "  UPPER lower_case CamelCase http://a.b/c?d=e&f"};

static bool same_ids(const struct lb_ids *a, const struct lb_ids *b) {
    return a->len == b->len && memcmp(a->data, b->data, a->len * sizeof *a->data) == 0;
}

/* "[1, 2, 3, ...]": the first few from where they differ. */
static void put_ids(const struct lb_ids *ids, size_t from, struct lb_buf *out) {
    lb_buf_append_str(out, "[");
    for (size_t i = from; i < ids->len && i < from + 4; i++) {
        lb_buf_printf(out, "%s%d", i > from ? ", " : "", ids->data[i]);
    }
    lb_buf_append_str(out, ids->len > from + 4 ? ", ...]" : "]");
}

static enum lb_status unlike(const struct teacher *teacher, const char *text, const struct lb_ids *ours,
                             const struct lb_ids *its, struct lb_detail *detail) {
    struct lb_buf a, b;
    size_t at = 0;
    while (at < ours->len && at < its->len && ours->data[at] == its->data[at]) {
        at++;
    }
    lb_buf_init(&a, 256);
    lb_buf_init(&b, 256);
    put_ids(ours, at, &a);
    put_ids(its, at, &b);
    lb_fail(
        detail, LB_E_MISMATCH,
        "%s reads texts by another tokenizer than %s: of \"%.20s...\" it makes ids %s where that makes %s; "
        "%s",
        teacher->label, teacher->tokenizer ? teacher->is->tokenizer : "this recipe's", text,
        b.data ? b.data : "", a.data ? a.data : "",
        teacher->tokenizer ? "name its own with tokenizer"
                           : "give the recipe its model's tokenizer, or name that with the teacher's "
                             "tokenizer and let alm learn from it");
    lb_buf_finish(&a);
    lb_buf_finish(&b);
    return LB_E_MISMATCH;
}

static enum lb_status compare(const struct teacher *teacher, const struct lb_contact *contact,
                              const struct lb_tokenizer *tokenizer, const char *text,
                              struct lb_detail *detail) {
    struct lb_ids ours = {0}, its = {0};
    enum lb_status status = lb_tokenizer_encode(tokenizer, text, strlen(text), false, &ours, detail);
    status =
        status != LB_OK ? status : teacher->dialect->tokenize(contact, &teacher->info, text, &its, detail);
    if (status == LB_OK && !same_ids(&ours, &its)) {
        status = unlike(teacher, text, &ours, &its, detail);
    }
    lb_free(ours.data);
    lb_free(its.data);
    return status;
}

enum lb_status lb_teachers_check_tokenizer(const struct lb_teachers *teachers, unsigned k,
                                           const struct lb_tokenizer *tokenizer, struct lb_detail *detail) {
    const struct teacher *teacher = &teachers->teachers[k];
    int replica = 0;
    tokenizer = teacher->tokenizer ? teacher->tokenizer : tokenizer;
    while (replica < teacher->n_urls && !teacher->reached[replica]) {
        replica++;
    }
    if (!teacher->dialect->tokenize || !tokenizer || replica == teacher->n_urls) {
        return LB_OK;
    }
    struct lb_contact contact = lb_teacher_contact(teachers, teacher, replica);
    enum lb_status status = LB_OK;
    struct lb_detail why = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts && status == LB_OK; i++) {
        status = compare(teacher, &contact, tokenizer, texts[i], &why);
    }
    if (status == LB_OK || status == LB_E_MISMATCH || status == LB_E_CANCELLED || status == LB_E_NOMEM) {
        return status == LB_OK ? LB_OK : lb_fail(detail, status, "%s", why.text);
    }
    lb_log(LB_LOG_WARN, "tokenizer_not_compared",
           "teacher=%s note=\"the server does not say how it reads texts; that it reads this recipe's ids is "
           "believed\" error=\"%s\"",
           teacher->is->name, why.text);
    return LB_OK;
}
