/* How the fake teacher's answers go wrong. */
#ifndef LB_TESTS_FAKE_SPOIL_H
#define LB_TESTS_FAKE_SPOIL_H

#include "proto/oip.h"
#include "tests/support/fake_teacher.h"

/* What a teacher answers wrongly: before the answer is written. */
void fake_spoil(struct lb_infer_response *response, enum fake_fault fault);
/* What happens to its tensors, which begin at byte `at`, between the teacher and the trainer. */
void fake_spoil_bytes(struct lb_buf *body, size_t at, const struct lb_infer_response *response,
                      enum fake_fault fault);

#endif
