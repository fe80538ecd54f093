/* A GGUF file as parsed. Private to common/formats: gguf.c makes it, gguf_split.c joins the parts of one that
 * is split, gguf_get.c answers from it. */
#ifndef LB_FORMATS_GGUF_FILE_H
#define LB_FORMATS_GGUF_FILE_H

#include "common/base/file.h"
#include "common/formats/gguf.h"

/* One key and its value. Numbers stay where they are in the file (at any address); text is copied to get its
 * NUL. */
struct lb_gguf_pair {
    char *key;
    enum lb_gguf_type type, element; /* element: of an array; type, when it is none */
    uint64_t count;                  /* of an array; 1, when it is none */
    const uint8_t *value;            /* [count] numbers, or NULL */
    const char **texts;              /* [count] strings, or NULL; NULL for text that no C string can hold */
    char *text_bytes;                /* what texts point into */
};

struct lb_gguf {
    struct lb_map map;
    const char *what; /* of errors; valid during parse only */
    struct lb_gguf_pair *pairs;
    size_t n_pairs;
    const struct lb_gguf_pair **by_key;
    struct lb_tensor *tensors;
    uint64_t *offsets; /* of tensors within the data, as stored */
    char *names;       /* [n_tensors][MAX_NAME_BYTES + 1] */
    size_t n_tensors;
    const struct lb_tensor **by_name;
    char *path;             /* NULL: parsed from memory */
    struct lb_gguf **parts; /* [n_parts - 1] the others of a split file; tensors has theirs, too */
    int n_parts;
};

/* lb_gguf_parse without the tensors. */
LB_NODISCARD enum lb_status lb_gguf_parse_keys(const void *bytes, size_t len, const char *what,
                                               struct lb_gguf **out, struct lb_detail *detail);
/* Sorts tensors into by_name; LB_E_FORMAT when a name comes twice. */
LB_NODISCARD enum lb_status lb_gguf_index(struct lb_gguf *file, const char *what, struct lb_detail *detail);

/* Bytes of the value types; 0: strings and arrays. */
static const uint8_t lb_gguf_value_bytes[] = {
    [LB_GGUF_U8] = 1,  [LB_GGUF_I8] = 1,  [LB_GGUF_U16] = 2,  [LB_GGUF_I16] = 2,    [LB_GGUF_U32] = 4,
    [LB_GGUF_I32] = 4, [LB_GGUF_F32] = 4, [LB_GGUF_BOOL] = 1, [LB_GGUF_STRING] = 0, [LB_GGUF_ARRAY] = 0,
    [LB_GGUF_U64] = 8, [LB_GGUF_I64] = 8, [LB_GGUF_F64] = 8,
};
#define LB_GGUF_TYPES (sizeof lb_gguf_value_bytes / sizeof *lb_gguf_value_bytes)
_Static_assert(LB_GGUF_TYPES == 13, "gguf.md has 13 metadata value types");

#endif
