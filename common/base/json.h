/* JSON from outside, by jansson with limits, and getters that name the key when something is wrong. */
#ifndef LB_BASE_JSON_H
#define LB_BASE_JSON_H

#include "common/base/buf.h"
#include "common/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses exactly len bytes: one value, no duplicate keys, depth at most max_depth (0: 64). what names the
 * source in errors ("config.json"). The caller owns *out (json_decref). */
LB_NODISCARD enum lb_status lb_json_parse(const void *bytes, size_t len, int max_depth, const char *what,
                                          json_t **out, struct lb_detail *detail);
/* As lb_json_parse, but takes what other tools write beside JSON proper: a byte order mark, NaN, Infinity and
 * -Infinity, numbers beyond 64 bits, \u0000 in texts, a key twice (the last one counts). NaN and the like
 * become objects, which no getter takes: whoever asks for such a number is told, whoever does not is not
 * stopped. Whole numbers beyond 64 bits become reals. */
LB_NODISCARD enum lb_status lb_json_parse_loose(const void *bytes, size_t len, int max_depth,
                                                const char *what, json_t **out, struct lb_detail *detail);
/* Reads and parses a file of at most max_bytes, as lb_json_parse_loose does. */
LB_NODISCARD enum lb_status lb_json_file(const char *path, size_t max_bytes, json_t **out,
                                         struct lb_detail *detail);
/* Appends compact JSON with shortest round-trip numbers for reals up to 17 digits. Any failure is the
 * buffer's too, as with every append. */
enum lb_status lb_json_dump(const json_t *value, size_t flags, struct lb_buf *buf);

/* Getters: *out is left alone (its default) when the key is missing or null and required is false.
 * Wrong type or out of [min, max]: LB_E_FORMAT with "<what>: <key> ...". */
LB_NODISCARD enum lb_status lb_json_int(const json_t *object, const char *key, bool required, int64_t min,
                                        int64_t max, const char *what, int64_t *out,
                                        struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_json_number(const json_t *object, const char *key, bool required, double min,
                                           double max, const char *what, double *out,
                                           struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_json_bool(const json_t *object, const char *key, bool required,
                                         const char *what, bool *out, struct lb_detail *detail);
/* *out points into the object. A text with a NUL in it is refused. */
LB_NODISCARD enum lb_status lb_json_str(const json_t *object, const char *key, bool required,
                                        const char *what, const char **out, struct lb_detail *detail);

#endif
