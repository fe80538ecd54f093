/* Answers: JSON bodies, and errors in the form of the dialect that was spoken, with the status code that
 * fits. */
#ifndef LB_API_REPLY_H
#define LB_API_REPLY_H

#include "common/base/json.h"
#include "common/base/status.h"
#include "server/http/http.h"

/* Sends the value (taken over; NULL: 503, out of memory). */
void lb_reply_json(struct lb_exchange *exchange, int status, json_t *value);
/* The same for an object that ends with its digest (PROTOCOL.md "The answer's own digest"). */
void lb_reply_json_digest(struct lb_exchange *exchange, int status, json_t *object);
/* Sends bytes that live until the exchange ends. */
void lb_reply_bytes(struct lb_exchange *exchange, int status, const char *content_type, const void *bytes,
                    size_t len);
/* The body of the native API's errors, and of those about paths that are nobody's: {"error": "text"}. */
json_t *lb_error_body(int status, const char *text);
/* The body of an error in the form of the exchange's dialect, the caller's; NULL when out of memory. */
json_t *lb_reply_error_body(const struct lb_exchange *exchange, int status, const char *text);
/* An error in the form of the exchange's dialect; 503 gets Retry-After, 401 WWW-Authenticate. */
void lb_reply_error(struct lb_exchange *exchange, int status, const char *format, ...) LB_PRINTF(3, 4);
/* The same from a failed call: 400 for what a client can mend, 404, 413, 501, 503, 504; 500 for the rest. */
void lb_reply_fail(struct lb_exchange *exchange, enum lb_status status, const struct lb_detail *detail);
/* The code that lb_reply_fail sends. */
int lb_http_status(enum lb_status status);
/* Finds the model that the path names (the visit's hosted): true, or false after an error. */
bool lb_reply_find_model(struct lb_exchange *exchange);

#endif
