/* What a server is asked once, to find out what it is. For dialects. Any thread.
 */
#ifndef LB_WIRE_SAID_H
#define LB_WIRE_SAID_H

#include "common/base/json.h"
#include "common/text/ids.h"
#include "trainer/wire/contact.h"
#include "trainer/wire/stated.h"

/* Most bytes of an answer to such a question. */
#define LB_SAID_BYTES ((size_t)16 << 20)

/* One exchange (body NULL: GET). *served: an answer came. Where the server has no such thing, or not for this
 * model (400, 404, 405, 422, 501), that is no failure, and *why (may be NULL) says so. The caller finishes
 * call (initialised here) in any case. LB_E_NOMEM: the body is not whole. */
LB_NODISCARD enum lb_status lb_said_call(const struct lb_contact *contact, const char *path,
                                         const struct lb_buf *body, struct lb_call *call, bool *served,
                                         struct lb_detail *why, struct lb_detail *detail);
/* The same of JSON, the caller's; NULL where the server has no such thing. */
LB_NODISCARD enum lb_status lb_said_json(const struct lb_contact *contact, const char *path,
                                         const struct lb_buf *body, json_t **out, struct lb_detail *detail);
/* Appends the ids that the server's own tokenizer makes of a text: body is what /tokenize takes. *served is
 * false where it does not say. */
LB_NODISCARD enum lb_status lb_said_tokens(const struct lb_contact *contact, const struct lb_buf *body,
                                           struct lb_ids *out, bool *served, struct lb_detail *detail);
/* The ids of the fixed question (stated.h), so; where there are none, plain ids. At most most of them. */
LB_NODISCARD enum lb_status lb_said_ids(const struct lb_contact *contact, const struct lb_buf *body,
                                        int64_t most, struct lb_stated *out, struct lb_detail *detail);
/* Puts who said it before an error that does not tell. */
void lb_said_by(const struct lb_contact *contact, struct lb_detail *detail);

#endif
