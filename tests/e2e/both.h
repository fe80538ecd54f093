/* One model asked in two dialects: what both can say is the same number in each. */
#ifndef LB_TESTS_E2E_BOTH_H
#define LB_TESTS_E2E_BOTH_H

#include "trainer/teachers/teachers.h"

/* Asks about n samples at the address oip by oip and at the other by the protocol, of a vocabulary of which
 * neither need tell the size, and fails the test where numbers are further apart than near. */
void both_compare(const char *oip, const char *other, enum lb_protocol protocol, int64_t vocab,
                  const struct lb_ask_spec *spec, const struct lb_sample *samples, int64_t n, double near);

#endif
