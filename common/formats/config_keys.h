/* Keys and the fields they stand for. Private to common/formats: config_read.c, config_gguf.c and
 * config_write.c walk the same tables and stand on config.c. */
#ifndef LB_FORMATS_CONFIG_KEYS_H
#define LB_FORMATS_CONFIG_KEYS_H

#include "common/formats/config.h"

static inline const void *lb_key_field(const struct lb_config *c, const struct lb_config_key *key) {
    return (const char *)c + key->field;
}

static inline int64_t *lb_key_int(struct lb_config *c, const struct lb_config_key *key) {
    return (int64_t *)(void *)((char *)c + key->field);
}

static inline double *lb_key_real(struct lb_config *c, const struct lb_config_key *key) {
    return (double *)(void *)((char *)c + key->field);
}

static inline bool *lb_key_bool(struct lb_config *c, const struct lb_config_key *key) {
    return (bool *)(void *)((char *)c + key->field);
}

/* The key that comes at i of a form's tables, of which earlier ones hide names of later ones; NULL after the
 * last.
 */
const struct lb_config_key *lb_key_at(const struct lb_config_key *const tables[3], size_t i);

/* What a reader of config.json is at. */
struct lb_config_reading {
    const json_t *object;
    const char *what;
    const struct lb_config_form *form;
    struct lb_config *c;
    struct lb_detail *detail;
};
/* Present and not null. */
static inline bool lb_key_given(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return value != NULL && !json_is_null(value);
}
/* A number or a bool that is one of the two, or missing. */
enum lb_status lb_key_only_number(const struct lb_config_reading *r, const json_t *object, const char *name,
                                  double a, double b);

/* What a reader of GGUF keys is at. */
struct lb_gguf_reading {
    const struct lb_gguf *file;
    const char *what, *arch;
    struct lb_detail *detail;
};
/* A number; *out stays its default when the key is missing and not required. */
enum lb_status lb_gguf_real(const struct lb_gguf_reading *s, const char *key, bool required, double *out);
/* As lb_gguf_real, for whole numbers from 0 to 2^31 - 1. */
enum lb_status lb_gguf_whole(const struct lb_gguf_reading *s, const char *key, bool required, int64_t *out);

/* config_rope.c: LB_KEY_ROPE of config.json and of GGUF, read, checked and written. */
enum lb_status lb_rope_read(const struct lb_config_reading *r, const struct lb_config_key *key);
enum lb_status lb_rope_read_gguf(const struct lb_gguf_reading *s, const struct lb_config_form *form,
                                 struct lb_config *c);
json_t *lb_rope_json(const struct lb_config_form *form, const struct lb_config *c);
void lb_rope_put_gguf(const struct lb_config_form *form, const struct lb_config *c, struct lb_gguf_out *out);
void lb_rope_hash(const struct lb_rope_scaling *rope, struct lb_sha256 *hash);
/* Whether that GGUF key is one that lb_rope_read_gguf reads; name without the architecture. */
bool lb_rope_owns_gguf(const char *name);

/* config_layers.c: lists of one entry a layer. */
enum lb_status lb_layer_types_read(const struct lb_config_reading *r, const struct lb_config_key *key);
enum lb_status lb_rope_layers_read(const struct lb_config_reading *r, const struct lb_config_key *key);
json_t *lb_layer_types_json(const struct lb_config *c);
json_t *lb_rope_layers_json(const struct lb_config *c);

/* Keys that no family uses: the one list of what is harmless or, unless neutral, refused; NULL: unknown. */
const struct lb_config_key *lb_config_known(const char *name);
const struct lb_config_key *lb_config_known_gguf(const char *name);
/* Whether a name speaks of what would change the numbers. */
bool lb_config_speaks_of_numbers(const char *name);

#endif
