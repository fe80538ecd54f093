/* What a server is asked once, to find out what it is. For dialects. Any thread.
 */
#ifndef LB_WIRE_SAID_H
#define LB_WIRE_SAID_H

#include "common/base/json.h"
#include "trainer/wire/contact.h"
#include "trainer/wire/stated.h"

/* Most bytes of an answer to such a question. */
#define LB_SAID_BYTES ((size_t)16 << 20)

/* One exchange (body NULL: GET) whose answer is JSON, the caller's; NULL, and *why (may be NULL) says so,
 * where the server has no such thing (400, 404, 405, 422, 501). */
LB_NODISCARD enum lb_status lb_said_json(const struct lb_contact *contact, const char *path, const char *body,
                                         json_t **out, struct lb_detail *why, struct lb_detail *detail);
/* The ids of the fixed question (stated.h), by the server's own tokenizer: body is what /tokenize takes.
 * Where there is none, plain ids; at most most of them. */
LB_NODISCARD enum lb_status lb_said_ids(const struct lb_contact *contact, const char *body, int64_t most,
                                        struct lb_stated *out, struct lb_detail *detail);

#endif
