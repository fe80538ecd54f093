/* The dialect plain, for a person at a terminal: a model as one line of text, "NAME FINGERPRINT\n". Pure: any
 * thread.
 */
#ifndef LB_PROTO_PLAIN_H
#define LB_PROTO_PLAIN_H

#include "common/base/buf.h"
#include "common/base/status.h"
#include "proto/limits.h"

/* Appends the line to out. */
enum lb_status lb_plain_write(const char *name, const char *fingerprint, struct lb_buf *out);
/* Reads it again; LB_E_FORMAT when it is no such line. */
enum lb_status lb_plain_read(const char *line, char name[LB_MAX_NAME], char fingerprint[LB_MAX_NAME]);

#endif
