/* One server as it is talked to, whatever its dialect.
 *
 * One request each, no retries: those who call decide what a failure means. Any thread; stop (may be NULL)
 * ends a wait with LB_E_CANCELLED.
 */
#ifndef LB_WIRE_CONTACT_H
#define LB_WIRE_CONTACT_H

#include "common/base/buf.h"
#include "trainer/wire/http_client.h"
#include "trainer/wire/naming.h"

/* A server as it is asked. name stands in errors ("teacher math"). */
struct lb_contact {
    struct lb_client *http;
    const char *name, *base, *token; /* token NULL: none */
    const struct lb_naming *naming;  /* of its tensors; NULL: it is a limbeckd, or speaks another dialect */
    uint64_t timeout_ns;
    volatile sig_atomic_t *stop;
};

/* "name at base", for errors. */
void lb_contact_where(const struct lb_contact *contact, char *out, size_t size);

/* Turns an answer that is no 200 into a status and one line: what the server said, and what to do about it.
 * where names teacher and address. A transport error is passed on. LB_OK for a 200. */
enum lb_status lb_call_check(const struct lb_call *call, const char *where, struct lb_detail *detail);

/* One exchange (body NULL: GET, else POST of that JSON), checked to be a 200. The caller finishes call
 * (initialised here) in any case. */
LB_NODISCARD enum lb_status lb_contact_call(const struct lb_contact *contact, struct lb_call *call,
                                            const char *path, const char *body, size_t max_bytes,
                                            struct lb_detail *detail);
/* GET path; the body is appended to out (whose maximum bounds it). */
LB_NODISCARD enum lb_status lb_contact_get(const struct lb_contact *contact, const char *path,
                                           struct lb_buf *out, uint64_t *out_elapsed_ns,
                                           struct lb_detail *detail);

/* The first line of a token file, which holds a token alone, without blanks, on the heap (lb_free). */
LB_NODISCARD enum lb_status lb_token_read(const char *path, char **out, struct lb_detail *detail);

#endif
