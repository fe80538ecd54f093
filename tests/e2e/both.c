#include "tests/e2e/both.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/asking.h"

#include <math.h>
#include <string.h>

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

static double number_at(const struct lb_wire_tensor *tensor, int64_t i) {
    float v;
    if (tensor->datatype == LB_DT_INT32 || tensor->datatype == LB_DT_UINT16) {
        return lb_answer_id(tensor, i);
    }
    lb_wire_floats(tensor, i, 1, &v);
    return v;
}

/* Logits are told less their log-sum-exp, which differs by row. */
static double shift_of(const struct lb_wire_tensor *a, const struct lb_wire_tensor *b, int64_t row) {
    if (strcmp(a->name, "logits.topk_values") != 0) {
        return 0;
    }
    return number_at(a, row * a->dim[1]) - number_at(b, row * b->dim[1]);
}

static void equal(const struct lb_answer *a, const struct lb_answer *b, double near) {
    assert_int_equal(a->n_tensors, b->n_tensors);
    for (size_t j = 0; j < a->n_tensors; j++) {
        const struct lb_wire_tensor *x = &a->tensors[j], *y = &b->tensors[j];
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->datatype, y->datatype);
        assert_int_equal(x->n_dims, y->n_dims);
        assert_int_equal(x->bytes, y->bytes);
        int64_t columns = x->n_dims > 1 ? x->dim[1] : 1;
        for (int64_t i = 0; i < lb_wire_elements(x); i++) {
            double d = number_at(x, i) - number_at(y, i) - shift_of(x, y, i / columns);
            if (!(fabs(d) <= near)) {
                fail_msg("%s[%lld]: %.9g and %.9g", x->name, (long long)i, number_at(x, i), number_at(y, i));
            }
        }
    }
}

void both_compare(const char *oip, const char *other, enum lb_protocol protocol, int64_t vocab,
                  const struct lb_ask_spec *spec, const struct lb_sample *samples, int64_t n, double near) {
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers;
    asking_setup(&asking);
    asking_add(&asking, oip);
    asking_add(&asking, other);
    asking.teachers[1].protocol = protocol;
    must(lb_teachers_open_recipe(&asking.recipe, NULL, &teachers, &detail), &detail);
    for (unsigned k = 0; k < 2; k++) {
        lb_teachers_assume_vocab(teachers, k, vocab);
        must(lb_teachers_set_spec(teachers, k, spec, &detail), &detail);
    }
    must(lb_teachers_submit(teachers, 0, samples, n, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    for (int64_t i = 0; i < n; i++) {
        assert_non_null(answers[2 * i]);
        assert_non_null(answers[2 * i + 1]);
        equal(answers[2 * i], answers[2 * i + 1], near);
    }
    lb_teachers_release(teachers, 0);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
}
