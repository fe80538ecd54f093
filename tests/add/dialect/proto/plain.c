#include "proto/plain.h"

#include <string.h>

enum lb_status lb_plain_write(const char *name, const char *fingerprint, struct lb_buf *out) {
    lb_buf_append_str(out, name);
    lb_buf_append_str(out, " ");
    lb_buf_append_str(out, fingerprint);
    lb_buf_append_str(out, "\n");
    return lb_buf_status(out);
}

/* The next word into out; what follows it. NULL when there is none, or it is too long. */
static const char *word(const char *at, char end, char out[LB_MAX_NAME]) {
    const char *stop = strchr(at, end);
    if (stop == NULL || stop == at || stop - at >= LB_MAX_NAME) {
        return NULL;
    }
    memcpy(out, at, (size_t)(stop - at));
    out[stop - at] = '\0';
    return stop + 1;
}

enum lb_status lb_plain_read(const char *line, char name[LB_MAX_NAME], char fingerprint[LB_MAX_NAME]) {
    const char *at = word(line, ' ', name);
    at = at != NULL ? word(at, '\n', fingerprint) : NULL;
    return at != NULL && *at == '\0' ? LB_OK : LB_E_FORMAT;
}
