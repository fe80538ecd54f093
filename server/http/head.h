/* The head of an HTTP/1.1 request (RFC 9110, RFC 9112), read strictly: whatever two readers could understand
 * differently is refused. And the chunked coding of a body, piece by piece. Pure; any thread.
 */
#ifndef LB_HTTP_HEAD_H
#define LB_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_MAX_HEADERS 100

struct lb_request_head {
    const char *method;
    const char *path; /* without the query; decoded, but for %2F and %25 (lb_segment_decode) */
    int minor;        /* HTTP/1.minor: 0 or 1 */
    size_t n_headers;
    struct {
        const char *name, *value; /* no white space around */
    } headers[LB_MAX_HEADERS];
    bool has_length, chunked; /* how the body's end is told; neither: there is none */
    uint64_t length;
    bool keep_alive, expects_continue;
};

/* Where a head ends in these bytes: the number of bytes up to and with its empty line, 0: not there yet.
 * from: bytes that were looked at before. */
size_t lb_head_end(const char *text, size_t len, size_t from);

/* Reads a whole head, changing text in place; out points into it, and is set as far as could be read. Returns
 * 0, or the status that refuses it with *out_why as its text. After a refusal nobody knows where the next
 * request begins: the connection must be closed. */
int lb_head_parse(char *text, size_t len, struct lb_request_head *out, const char **out_why);
/* Decodes what is left in one segment of a path, in place. */
void lb_segment_decode(char *segment);
/* A header's value (the first of the name; those that matter do not differ) or NULL. */
const char *lb_head_find(const struct lb_request_head *head, const char *name);

struct lb_chunks {
    int state;
    uint64_t left;   /* of the chunk */
    unsigned digits; /* of its size */
    unsigned extra;  /* bytes of extensions and trailers: bounded */
    bool done;
};
/* Reads from *at (up to end), and sets *out_data and *out_len to the next piece of the body (it lies in the
 * bytes read) and *at behind it. A piece of 0 bytes: done, or all was read. False: not the coding. */
bool lb_chunks_next(struct lb_chunks *chunks, const char **at, const char *end, const char **out_data,
                    size_t *out_len);

#endif
