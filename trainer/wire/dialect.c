#include "trainer/wire/dialect.h"

#include "trainer/wire/named.h"

#include <string.h>

#define DECLARED(kind, name) extern const struct lb_dialect lb_dialect_##name;
LB_DIALECTS(DECLARED)

#define ROW(kind, name) [LB_PROTOCOL_##kind] = &lb_dialect_##name,
static const struct lb_dialect *const dialects[] = {LB_DIALECTS(ROW)};

const struct lb_dialect *lb_dialect_get(enum lb_protocol protocol) {
    return dialects[protocol];
}

const struct lb_dialect *lb_dialect_of(enum lb_protocol protocol, const struct lb_naming *naming) {
    return naming ? &lb_dialect_named : lb_dialect_get(protocol);
}

bool lb_protocol_find(const char *name, enum lb_protocol *out) {
    for (int p = 0; p < LB_N_PROTOCOLS; p++) {
        if (strcmp(dialects[p]->name, name) == 0) {
            *out = (enum lb_protocol)p;
            return true;
        }
    }
    return false;
}

int64_t lb_dialect_most(const struct lb_dialect *dialect, const struct lb_teacher_info *info,
                        const struct lb_ask_spec *spec) {
    return dialect->most ? dialect->most(info, spec) : LB_MAX_SEQUENCES;
}

unsigned lb_dialect_at_once(const struct lb_dialect *dialect, const struct lb_teacher_info *info) {
    return dialect->at_once ? dialect->at_once(info) : LB_ASK_AT_ONCE;
}

uint64_t lb_dialect_answer_bytes(const struct lb_dialect *dialect, const struct lb_teacher_info *info,
                                 const struct lb_ask_spec *spec, int64_t rows, int64_t n) {
    return dialect->answer_bytes ? dialect->answer_bytes(info, spec, rows, n)
                                 : lb_ask_answer_bytes(info, spec, rows, n);
}
