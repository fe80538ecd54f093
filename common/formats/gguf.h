/* GGUF version 3 (and 2 for reading): typed key-values and tensors. Specification: ggml-org/ggml
 * docs/gguf.md. Shapes are turned to row-major, slowest first, as everywhere else here. */
#ifndef LB_FORMATS_GGUF_H
#define LB_FORMATS_GGUF_H

#include "common/base/buf.h"
#include "common/base/status.h"
#include "common/nn/tensor.h"

#include <stdbool.h>

enum lb_gguf_type {
    LB_GGUF_U8,
    LB_GGUF_I8,
    LB_GGUF_U16,
    LB_GGUF_I16,
    LB_GGUF_U32,
    LB_GGUF_I32,
    LB_GGUF_F32,
    LB_GGUF_BOOL,
    LB_GGUF_STRING,
    LB_GGUF_ARRAY,
    LB_GGUF_U64,
    LB_GGUF_I64,
    LB_GGUF_F64
};

struct lb_gguf;

/* A key of files that this program wrote: its version. They may be replaced, others not. */
#define LB_GGUF_MARK "limbeck.version"

/* Maps and checks every field before it is trusted; tensors of a ggml type that this build lacks are an
 * LB_E_UNSUPPORTED naming tensor and type. The first of several parts (NAME-00001-of-0000N.gguf, keys
 * split.*) opens them all: its keys, the tensors of all. A part that is missing, of another model or not the
 * first is refused by its name. */
LB_NODISCARD enum lb_status lb_gguf_open(const char *path, struct lb_gguf **out, struct lb_detail *detail);
/* The files that were opened: path 0, 1...; NULL after the last. */
const char *lb_gguf_path(const struct lb_gguf *file, int i);
/* The first of them that was written to since (lb_map_written); NULL. */
const char *lb_gguf_written(const struct lb_gguf *file);
/* Whether a path ends as those of parts do: the length of what stands before, which part (from 1) of how
 * many.
 */
bool lb_gguf_part_name(const char *path, size_t *out_stem, int *out_part, int *out_parts);
/* Keys only: the file has no tensors to its caller, whatever they are. */
LB_NODISCARD enum lb_status lb_gguf_open_keys(const char *path, struct lb_gguf **out,
                                              struct lb_detail *detail);
/* One file over bytes at a multiple of 8 that the caller keeps until destroy; what names them in errors. */
LB_NODISCARD enum lb_status lb_gguf_parse(const void *bytes, size_t len, const char *what,
                                          struct lb_gguf **out, struct lb_detail *detail);
void lb_gguf_destroy(struct lb_gguf *file);

/* Tensors in the order of their data; views valid until destroy. */
size_t lb_gguf_count(const struct lb_gguf *file);
const struct lb_tensor *lb_gguf_get(const struct lb_gguf *file, size_t i);
/* NULL when there is none of that name. */
const struct lb_tensor *lb_gguf_find(const struct lb_gguf *file, const char *name);

size_t lb_gguf_key_count(const struct lb_gguf *file);
/* Key i in the order of the file, its type and, for arrays, the type of the elements; NULL out of range. */
const char *lb_gguf_key(const struct lb_gguf *file, size_t i, enum lb_gguf_type *out_type,
                        enum lb_gguf_type *out_element);
bool lb_gguf_has(const struct lb_gguf *file, const char *key);
/* Any integer, float or bool type, converted; false when missing or of another kind. */
bool lb_gguf_number(const struct lb_gguf *file, const char *key, double *out);
/* A NUL-terminated string valid until destroy; NULL when missing, no string, or text with a NUL or invalid
 * UTF-8 in it. */
const char *lb_gguf_string(const struct lb_gguf *file, const char *key);
/* Arrays: element count, or -1 when missing or no array. */
int64_t lb_gguf_array_count(const struct lb_gguf *file, const char *key);
const char *lb_gguf_array_string(const struct lb_gguf *file, const char *key, int64_t i);
bool lb_gguf_array_number(const struct lb_gguf *file, const char *key, int64_t i, double *out);

/* Writing: collect, then write at once. Keys and their values are copied; tensors' names and data are
 * borrowed until write. general.alignment stays the default, 32; general.quantization_version is added when a
 * tensor is quantised and the caller has not put it. */
struct lb_gguf_out;
struct lb_gguf_out *lb_gguf_out_create(void);
void lb_gguf_out_destroy(struct lb_gguf_out *out);
/* The setters are sticky: out of memory, a key put twice, text that is no UTF-8, a tensor whose bytes do not
 * fit its shape are reported by write. */
void lb_gguf_put_u32(struct lb_gguf_out *out, const char *key, uint32_t v);
void lb_gguf_put_f32(struct lb_gguf_out *out, const char *key, float v);
void lb_gguf_put_bool(struct lb_gguf_out *out, const char *key, bool v);
void lb_gguf_put_string(struct lb_gguf_out *out, const char *key, const char *v);
void lb_gguf_put_strings(struct lb_gguf_out *out, const char *key, const char *const *v, size_t n);
void lb_gguf_put_u8s(struct lb_gguf_out *out, const char *key, const unsigned char *v, size_t n);
void lb_gguf_put_i32s(struct lb_gguf_out *out, const char *key, const int32_t *v, size_t n);
void lb_gguf_put_f32s(struct lb_gguf_out *out, const char *key, const float *v, size_t n);
void lb_gguf_put_tensor(struct lb_gguf_out *out, const struct lb_tensor *tensor);
LB_NODISCARD enum lb_status lb_gguf_write(struct lb_gguf_out *out, const char *path,
                                          struct lb_detail *detail);
/* The same appended to a buffer. */
LB_NODISCARD enum lb_status lb_gguf_encode(struct lb_gguf_out *out, struct lb_buf *buf,
                                           struct lb_detail *detail);

#endif
