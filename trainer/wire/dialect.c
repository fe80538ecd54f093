#include "trainer/wire/dialect.h"

#define DECLARED(kind, name) extern const struct lb_dialect lb_dialect_##name;
LB_DIALECTS(DECLARED)

#define ROW(kind, name) [LB_PROTOCOL_##kind] = &lb_dialect_##name,
static const struct lb_dialect *const dialects[] = {LB_DIALECTS(ROW)};

const struct lb_dialect *lb_dialect_get(enum lb_protocol protocol) {
    return dialects[protocol];
}
