/* What requests and answers have in common, for oip_request.c and oip_response.c only: opening a body,
 * reading and writing tensors, strings and numbers. All reading is checked; texts of errors name the tensor
 * and the byte.
 */
#ifndef LB_PROTO_OIP_WIRE_H
#define LB_PROTO_OIP_WIRE_H

#include "common/base/json.h"
#include "proto/oip.h"

/* A body being read: the JSON part, then binary tensors one after the other. */
struct lb_wire_source {
    const uint8_t *bytes;
    size_t len;
    size_t next;     /* where the next binary tensor starts */
    bool has_header; /* Inference-Header-Content-Length was given */
    struct lb_arena *arena;
    json_t *root; /* an object; json_decref after reading */
};

/* Checks the lengths and parses the JSON part. max_json bounds it. On success the caller owns source->root.
 */
LB_NODISCARD enum lb_status lb_wire_open(struct lb_wire_source *source, const void *body, size_t len,
                                         int64_t json_len, size_t max_json, struct lb_arena *arena,
                                         const char *what, struct lb_detail *detail);
/* Every byte after the JSON must have belonged to a tensor. */
LB_NODISCARD enum lb_status lb_wire_end(const struct lb_wire_source *source, const char *what,
                                        struct lb_detail *detail);

/* The array under key, of at most LB_MAX_TENSORS objects. *out is NULL when it is missing and not required.
 */
LB_NODISCARD enum lb_status lb_wire_list(const json_t *root, const char *key, bool required, const char *what,
                                         const json_t **out, struct lb_detail *detail);
/* The object "parameters", whose values must be strings, numbers or booleans (null counts as absent); *out is
 * NULL when there is none. */
LB_NODISCARD enum lb_status lb_wire_parameters(const json_t *object, const char *what, const json_t **out,
                                               struct lb_detail *detail);
/* The member "name": 1 to LB_MAX_NAME - 1 bytes without control characters, copied into the arena. role:
 * "input". */
LB_NODISCARD enum lb_status lb_wire_name(const json_t *object, const char *role, size_t index,
                                         struct lb_arena *arena, const char **out, struct lb_detail *detail);
/* The optional member "id", copied into the arena; NULL when there is none. */
LB_NODISCARD enum lb_status lb_wire_id(const json_t *root, const char *what, struct lb_arena *arena,
                                       const char **out, struct lb_detail *detail);
/* One whole tensor of the list; binary ones take their bytes from the source. */
LB_NODISCARD enum lb_status lb_wire_read_tensor(struct lb_wire_source *source, const json_t *object,
                                                const char *role, size_t index, struct lb_wire_tensor *out,
                                                struct lb_detail *detail);
/* The JSON numbers in data as the tensor's datatype and shape want them, into arena memory: tensor->data,
 * bytes. */
LB_NODISCARD enum lb_status lb_wire_read_values(const json_t *data, const char *role, struct lb_arena *arena,
                                                struct lb_wire_tensor *tensor, struct lb_detail *detail);

/* Writing: failures of the buffer are sticky there and reported once by lb_wire_written. */
LB_NODISCARD enum lb_status lb_wire_put_string(struct lb_buf *buf, const char *text, const char *what,
                                               struct lb_detail *detail);
/* {"name":…,"datatype":…,"shape":[…],"parameters":{"binary_data_size":…}} or with "data":[…], values flat. */
LB_NODISCARD enum lb_status lb_wire_put_tensor(struct lb_buf *buf, const struct lb_wire_tensor *tensor,
                                               const char *role, struct lb_detail *detail);
/* ,"data":[…] with at most LB_MAX_JSON_VALUES values. */
LB_NODISCARD enum lb_status lb_wire_put_values(struct lb_buf *buf, const struct lb_wire_tensor *tensor,
                                               const char *role, struct lb_detail *detail);
/* Spaces until the bytes since start are a multiple of 8, so that binary tensors behind them are aligned. */
void lb_wire_pad(struct lb_buf *buf, size_t start);
LB_NODISCARD enum lb_status lb_wire_written(const struct lb_buf *buf, const char *what,
                                            struct lb_detail *detail);

#define LB_WIRE_DIGEST "digest" /* the tensor's name, and the member's */

#define LB_NUMBER_TEXT 32
/* The shortest decimal (with a point or exponent, so that it stays a real) that reads back to the same bits;
 * x is finite. Returns the length. Independent of the locale. */
size_t lb_wire_float_text(float x, char out[LB_NUMBER_TEXT]);
size_t lb_wire_double_text(double x, char out[LB_NUMBER_TEXT]);
size_t lb_wire_integer_text(int64_t v, char out[LB_NUMBER_TEXT]);

#endif
