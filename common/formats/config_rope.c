/* Rotary positions in config.json ("rope_parameters" of transformers 5, "rope_scaling" of 4) and in GGUF. */
#include "common/formats/config_keys.h"
#include "common/formats/rope_scaling.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const type_names[] = {"default", "linear", "dynamic", "yarn", "longrope", "llama3"};
#define N_TYPES ((int64_t)(sizeof type_names / sizeof *type_names))

#define OF(type) (1u << LB_ROPE_##type)
#define MOST_FACTOR 1e6

/* The members of struct lb_rope_scaling that an object has. */
static const struct member {
    const char *name;
    size_t offset;
    unsigned types, needed; /* sets of types */
    bool whole;
} members[] = {
    {"factor", offsetof(struct lb_rope_scaling, factor),
     OF(LINEAR) | OF(DYNAMIC) | OF(YARN) | OF(LONGROPE) | OF(LLAMA3), OF(LINEAR) | OF(DYNAMIC) | OF(LLAMA3),
     false},
    {"original_max_position_embeddings", offsetof(struct lb_rope_scaling, original),
     OF(YARN) | OF(LONGROPE) | OF(LLAMA3), 0, true},
    {"attention_factor", offsetof(struct lb_rope_scaling, attention_factor), OF(YARN) | OF(LONGROPE), 0,
     false},
    {"low_freq_factor", offsetof(struct lb_rope_scaling, low_freq_factor), OF(LLAMA3), OF(LLAMA3), false},
    {"high_freq_factor", offsetof(struct lb_rope_scaling, high_freq_factor), OF(LLAMA3), OF(LLAMA3), false},
    {"beta_fast", offsetof(struct lb_rope_scaling, beta_fast), OF(YARN), 0, false},
    {"beta_slow", offsetof(struct lb_rope_scaling, beta_slow), OF(YARN), 0, false},
    {"mscale", offsetof(struct lb_rope_scaling, mscale), OF(YARN), 0, false},
    {"mscale_all_dim", offsetof(struct lb_rope_scaling, mscale_all_dim), OF(YARN), 0, false},
};
#define N_MEMBERS (sizeof members / sizeof *members)

static bool takes(const struct member *m, int64_t type) {
    return (m->types >> type & 1) != 0;
}

static double get_member(const struct lb_rope_scaling *rope, const struct member *m) {
    const char *at = (const char *)rope + m->offset;
    return m->whole ? (double)*(const int64_t *)(const void *)at : *(const double *)(const void *)at;
}

/* ---- config.json ---- */

static enum lb_status read_type(const struct lb_config_reading *r, const json_t *rope, const char *key,
                                int64_t *out) {
    const char *name = NULL;
    enum lb_status status = lb_json_str(rope, "type", false, r->what, &name, r->detail);
    status = status == LB_OK ? lb_json_str(rope, "rope_type", false, r->what, &name, r->detail) : status;
    *out = LB_ROPE_DEFAULT;
    if (status != LB_OK || name == NULL) {
        return status;
    }
    for (int64_t t = 0; t < N_TYPES; t++) {
        if (strcmp(name, type_names[t]) == 0) {
            bool long_yarn = t == LB_ROPE_YARN && lb_key_given(rope, "long_factor"); /* early Phi-3 */
            *out = long_yarn ? LB_ROPE_LONGROPE : t;
            return LB_OK;
        }
    }
    if (strcmp(name, "su") == 0) { /* LongRoPE's first name */
        *out = LB_ROPE_LONGROPE;
        return LB_OK;
    }
    return lb_fail(
        r->detail, LB_E_UNSUPPORTED,
        "%s: %s.rope_type \"%.64s\" is not supported, only default, linear, dynamic, yarn, longrope "
        "and llama3",
        r->what, key, name);
}

static enum lb_status read_factors(const struct lb_config_reading *r, const json_t *rope, const char *name,
                                   double *out) {
    const json_t *list = json_object_get(rope, name), *v;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > LB_MAX_ROPE_FACTORS) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: longrope's %s must be an array of 1 to %d numbers",
                       r->what, name, LB_MAX_ROPE_FACTORS);
    }
    json_array_foreach(list, i, v) {
        out[i] = json_number_value(v);
        if (!json_is_number(v) || !(out[i] > 0 && out[i] <= MOST_FACTOR)) {
            return lb_fail(r->detail, LB_E_FORMAT, "%s: longrope's %s[%zu] is no number above 0", r->what,
                           name, i);
        }
    }
    if (r->c->rope.n_factors != 0 && r->c->rope.n_factors != (int64_t)json_array_size(list)) {
        return lb_fail(r->detail, LB_E_ARG, "%s: longrope's long_factor and short_factor differ in length",
                       r->what);
    }
    r->c->rope.n_factors = (int64_t)json_array_size(list);
    return LB_OK;
}

static enum lb_status read_member(const struct lb_config_reading *r, const json_t *rope,
                                  const struct member *m) {
    char *at = (char *)&r->c->rope + m->offset;
    bool needed = (m->needed >> r->c->rope.type & 1) != 0;
    if (!takes(m, r->c->rope.type) || (!needed && !lb_key_given(rope, m->name))) {
        return LB_OK;
    }
    return m->whole
               ? lb_json_int(rope, m->name, needed, 1, INT32_MAX, r->what, (int64_t *)(void *)at, r->detail)
               : lb_json_number(rope, m->name, needed, 1e-6, MOST_FACTOR, r->what, (double *)(void *)at,
                                r->detail);
}

/* What the object has beside: of no effect only where it is 1. */
static enum lb_status judge_member(const struct lb_config_reading *r, const json_t *rope, const char *name) {
    static const char *const mine[] = {"rope_type", "type", "rope_theta"};
    int64_t type = r->c->rope.type;
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++) {
        if (strcmp(name, mine[i]) == 0) {
            return LB_OK;
        }
    }
    for (size_t i = 0; i < N_MEMBERS; i++) {
        if (strcmp(name, members[i].name) == 0 && takes(&members[i], type)) {
            return LB_OK;
        }
    }
    if ((type == LB_ROPE_LONGROPE &&
         (strcmp(name, "long_factor") == 0 || strcmp(name, "short_factor") == 0)) ||
        (type == LB_ROPE_YARN && strcmp(name, "truncate") == 0) ||
        (r->form->missing.partial_rotary_factor > 0 && strcmp(name, "partial_rotary_factor") == 0)) {
        return LB_OK;
    }
    return lb_key_only_number(r, rope, name, 1, 1);
}

/* The length before stretching. transformers: what stands beside the object wins, in Phi-3 even what a
 * missing one means (beside; 0: none). */
static enum lb_status settle_original(const struct lb_config_reading *r, int64_t beside) {
    struct lb_rope_scaling *rope = &r->c->rope;
    static const char name[] = "original_max_position_embeddings";
    if (rope->type == LB_ROPE_DYNAMIC) { /* there the length that counts is the one that a config names */
        rope->original = r->c->max_position_embeddings;
        double most = floor((double)rope->original * rope->factor);
        r->c->max_position_embeddings = most < INT32_MAX ? (int64_t)most : INT32_MAX;
        return LB_OK;
    }
    if (rope->type != LB_ROPE_YARN && rope->type != LB_ROPE_LONGROPE && rope->type != LB_ROPE_LLAMA3) {
        rope->original = beside;
        return LB_OK;
    }
    rope->original = beside > 0 ? beside : rope->original;
    rope->original = rope->original > 0 ? rope->original : r->c->max_position_embeddings;
    return lb_key_given(r->object, name)
               ? lb_json_int(r->object, name, false, 1, INT32_MAX, r->what, &rope->original, r->detail)
               : LB_OK;
}

static enum lb_status read_object(const struct lb_config_reading *r, json_t *rope,
                                  const struct lb_config_key *key) {
    struct lb_rope_scaling *to = &r->c->rope;
    const char *name;
    json_t *value;
    bool truncate;
    int64_t beside = r->form->missing.rope.original > 0 ? to->original : 0;
    *to = r->form->missing.rope;
    enum lb_status status = read_type(r, rope, key->name, &to->type);
    status = status == LB_OK ? lb_json_number(rope, "rope_theta", false, key->min, key->max, r->what,
                                              lb_key_real(r->c, key), r->detail)
                             : status;
    for (size_t i = 0; i < N_MEMBERS && status == LB_OK; i++) {
        status = read_member(r, rope, &members[i]);
    }
    if (status == LB_OK && to->type == LB_ROPE_LONGROPE) {
        status = read_factors(r, rope, "short_factor", to->short_factor);
        status = status == LB_OK ? read_factors(r, rope, "long_factor", to->long_factor) : status;
    }
    if (status == LB_OK && to->type == LB_ROPE_YARN) {
        truncate = !json_is_null(json_object_get(rope, "truncate")); /* transformers: null is false */
        status = lb_json_bool(rope, "truncate", false, r->what, &truncate, r->detail);
        to->untruncated = !truncate;
    }
    if (status == LB_OK && r->form->missing.partial_rotary_factor > 0) {
        status = lb_json_number(rope, "partial_rotary_factor", false, 1e-6, 1, r->what,
                                &r->c->partial_rotary_factor, r->detail);
    }
    json_object_foreach(rope, name, value) {
        status = status == LB_OK && !json_is_null(value) ? judge_member(r, rope, name) : status;
    }
    return status == LB_OK ? settle_original(r, beside) : status;
}

/* Two bases: an object for the layers that see all and one for those with a window, which is never scaled. */
static enum lb_status read_two(const struct lb_config_reading *r, json_t *rope,
                               const struct lb_config_key *key) {
    json_t *full = json_object_get(rope, "full_attention"),
           *sliding = json_object_get(rope, "sliding_attention");
    int64_t type = LB_ROPE_DEFAULT;
    const char *name;
    json_t *value;
    enum lb_status status = LB_OK;
    if (full != NULL && !json_is_null(full)) {
        status = json_is_object(full)
                     ? read_object(r, full, key)
                     : lb_fail(r->detail, LB_E_FORMAT, "%s: %s.full_attention must be an object", r->what,
                               key->name);
    }
    if (status != LB_OK || sliding == NULL || json_is_null(sliding)) {
        return status;
    }
    if (!json_is_object(sliding)) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: %s.sliding_attention must be an object", r->what,
                       key->name);
    }
    status = read_type(r, sliding, key->name, &type);
    if (status == LB_OK && type != LB_ROPE_DEFAULT) {
        return lb_fail(r->detail, LB_E_UNSUPPORTED,
                       "%s: %s.sliding_attention.rope_type \"%s\" is not supported", r->what, key->name,
                       type_names[type]);
    }
    status = status == LB_OK ? lb_json_number(sliding, "rope_theta", false, key->min, key->max, r->what,
                                              &r->c->rope_local_theta, r->detail)
                             : status;
    json_object_foreach(sliding, name, value) {
        bool mine =
            strcmp(name, "rope_theta") == 0 || strcmp(name, "rope_type") == 0 || strcmp(name, "type") == 0;
        status = status == LB_OK && !mine ? lb_key_only_number(r, sliding, name, 1, 1) : status;
    }
    return status;
}

/* transformers lets rope_scaling win where it isn't empty. */
enum lb_status lb_rope_read(const struct lb_config_reading *r, const struct lb_config_key *key) {
    json_t *rope = json_object_get(r->object, key->name);
    bool scaling = strcmp(key->name, "rope_scaling") == 0, two_bases = r->form->missing.rope_local_theta > 0;
    if (!lb_key_given(r->object, key->name)) {
        return LB_OK;
    }
    if (!json_is_object(rope)) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: %s must be an object or null", r->what, key->name);
    }
    bool by_layer = lb_key_given(rope, "full_attention") || lb_key_given(rope, "sliding_attention");
    if (json_object_size(rope) == 0 ||
        (!scaling && !two_bases && json_object_size(json_object_get(r->object, "rope_scaling")) > 0)) {
        return LB_OK;
    }
    if (by_layer && !two_bases) {
        return lb_fail(r->detail, LB_E_UNSUPPORTED, "%s: %s that differ by layer are not supported", r->what,
                       key->name);
    }
    if (two_bases && !by_layer && !scaling) {
        return lb_fail(r->detail, LB_E_UNSUPPORTED,
                       "%s: %s of model_type %s has full_attention and sliding_attention, not one for all",
                       r->what, key->name, r->form->model_type);
    }
    return by_layer ? read_two(r, rope, key) : read_object(r, rope, key);
}

static json_t *factors_json(const double *factors, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0; list != NULL && i < n; i++) {
        if (json_array_append_new(list, json_real(factors[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* A new reference, or NULL when out of memory. */
static json_t *object_of(const struct lb_config *c) {
    const struct lb_rope_scaling *rope = &c->rope;
    json_t *object =
        json_pack("{s:f, s:s}", "rope_theta", c->rope_theta, "rope_type", type_names[rope->type]);
    bool made = object != NULL;
    for (size_t i = 0; made && i < N_MEMBERS; i++) {
        double v = get_member(rope, &members[i]);
        if (takes(&members[i], rope->type) && v > 0) {
            made = json_object_set_new(object, members[i].name,
                                       members[i].whole ? json_integer((json_int_t)v) : json_real(v)) == 0;
        }
    }
    if (made && c->partial_rotary_factor > 0) {
        made = json_object_set_new(object, "partial_rotary_factor", json_real(c->partial_rotary_factor)) == 0;
    }
    if (made && rope->type == LB_ROPE_YARN && rope->untruncated) {
        made = json_object_set_new(object, "truncate", json_false()) == 0;
    }
    if (made && rope->type == LB_ROPE_LONGROPE) {
        made =
            json_object_set_new(object, "short_factor", factors_json(rope->short_factor, rope->n_factors)) ==
                0 &&
            json_object_set_new(object, "long_factor", factors_json(rope->long_factor, rope->n_factors)) == 0;
    }
    if (!made) {
        json_decref(object);
        return NULL;
    }
    return object;
}

json_t *lb_rope_json(const struct lb_config_form *form, const struct lb_config *c) {
    json_t *object = object_of(c);
    if (object == NULL || form->missing.rope_local_theta == 0) {
        return object;
    }
    return json_pack("{s:o, s:{s:f, s:s}}", "full_attention", object, "sliding_attention", "rope_theta",
                     c->rope_local_theta, "rope_type", "default");
}

void lb_rope_hash(const struct lb_rope_scaling *rope, struct lb_sha256 *hash) {
    const char *type = type_names[rope->type];
    lb_sha256_update(hash, type, strlen(type) + 1);
    for (size_t i = 0; i < N_MEMBERS; i++) {
        double v = get_member(rope, &members[i]);
        if (takes(&members[i], rope->type) && v > 0) {
            lb_sha256_update(hash, members[i].name, strlen(members[i].name) + 1);
            lb_sha256_update(hash, &v, sizeof v);
        }
    }
    if (rope->untruncated) {
        lb_sha256_update(hash, "untruncated", sizeof "untruncated");
    }
    lb_sha256_update(hash, rope->short_factor, (size_t)rope->n_factors * sizeof *rope->short_factor);
    lb_sha256_update(hash, rope->long_factor, (size_t)rope->n_factors * sizeof *rope->long_factor);
}

/* ---- GGUF ---- */

#define MAX_KEY 96

/* What the reader below knows about; others are refused as any unknown key is. */
static const char *const gguf_names[] = {
    ".rope.scaling.type",           ".rope.scaling.factor",
    ".rope.scaling.attn_factor",    ".rope.scaling.original_context_length",
    ".rope.scaling.finetuned",      ".rope.scaling.yarn_beta_fast",
    ".rope.scaling.yarn_beta_slow", ".rope.scaling.yarn_ext_factor",
    ".rope.scale_linear",
};

bool lb_rope_owns_gguf(const char *name) {
    for (size_t i = 0; i < sizeof gguf_names / sizeof *gguf_names; i++) {
        if (strcmp(name, gguf_names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static const char *with_arch(const char *arch, const char *name, char out[MAX_KEY]) {
    snprintf(out, MAX_KEY, "%s%s", arch, name);
    return out;
}

static enum lb_status read_real(const struct lb_gguf_reading *s, const char *name, double *out) {
    char key[MAX_KEY];
    enum lb_status status = lb_gguf_real(s, with_arch(s->arch, name, key), false, out);
    if (status == LB_OK && !(*out >= 0 && *out <= MOST_FACTOR)) {
        status = lb_fail(s->detail, LB_E_UNSUPPORTED, "%s: key %s is %g", s->what, key, *out);
    }
    return status;
}

/* Factors of wavelengths, a vector of F32; *out_n 0: there is none. */
static enum lb_status read_tensor(const struct lb_gguf_reading *s, const char *name, double *out,
                                  int64_t *out_n) {
    const struct lb_tensor *t = lb_gguf_find(s->file, name);
    *out_n = 0;
    if (t == NULL) {
        return LB_OK;
    }
    if (t->dtype != LB_F32 || t->n_dims != 1 || t->dim[0] < 1 || t->dim[0] > LB_MAX_ROPE_FACTORS) {
        return lb_fail(s->detail, LB_E_UNSUPPORTED, "%s: tensor %s is no F32 vector of 1 to %d", s->what,
                       name, LB_MAX_ROPE_FACTORS);
    }
    for (int64_t i = 0; i < t->dim[0]; i++) {
        float v;
        memcpy(&v, (const char *)t->data + (size_t)i * sizeof v, sizeof v);
        if (!(v > 0 && v <= (float)MOST_FACTOR)) {
            return lb_fail(s->detail, LB_E_FORMAT, "%s: tensor %s[%" PRId64 "] is %g", s->what, name, i,
                           (double)v);
        }
        out[i] = (double)v;
    }
    *out_n = t->dim[0];
    return LB_OK;
}

/* The type that a file names. llama.cpp scales where there is a factor, "linear" being its default. */
static enum lb_status read_gguf_type(const struct lb_gguf_reading *s, double factor, int64_t *out) {
    char key[MAX_KEY];
    const char *name = lb_gguf_string(s->file, with_arch(s->arch, ".rope.scaling.type", key));
    if (name == NULL && lb_gguf_has(s->file, key)) {
        return lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is no text", s->what, key);
    }
    bool scaled = factor != 0 && factor != 1;
    *out = scaled ? LB_ROPE_LINEAR : LB_ROPE_DEFAULT;
    if (name == NULL || strcmp(name, "linear") == 0) {
        return LB_OK;
    }
    if (strcmp(name, "none") == 0 || strcmp(name, "longrope") == 0) { /* longrope is seen by its tensors */
        *out = LB_ROPE_DEFAULT;
        return scaled ? lb_fail(s->detail, LB_E_UNSUPPORTED,
                                "%s: rope.scaling.type is %s beside a factor of %g", s->what, name, factor)
                      : LB_OK;
    }
    if (strcmp(name, "yarn") == 0) {
        *out = LB_ROPE_YARN;
        return scaled ? LB_OK
                      : lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is yarn, but there is no factor", s->what,
                                key);
    }
    return lb_fail(s->detail, LB_E_UNSUPPORTED,
                   "%s: key %s is \"%.64s\"; only none, linear, yarn and longrope are supported", s->what,
                   key, name);
}

enum lb_status lb_rope_read_gguf(const struct lb_gguf_reading *s, const struct lb_config_form *form,
                                 struct lb_config *c) {
    struct lb_rope_scaling *rope = &c->rope;
    char key[MAX_KEY];
    double factor = 0, attn = 1, ext = 1;
    int64_t n = 0, n_long = 0, type = LB_ROPE_DEFAULT;
    *rope = form->missing.rope;
    rope->original = 0;
    enum lb_status status = read_real(s, ".rope.scale_linear", &factor);
    status = status == LB_OK ? read_real(s, ".rope.scaling.factor", &factor) : status;
    status = status == LB_OK ? read_real(s, ".rope.scaling.attn_factor", &attn) : status;
    status = status == LB_OK ? read_real(s, ".rope.scaling.yarn_ext_factor", &ext) : status;
    status = status == LB_OK ? read_real(s, ".rope.scaling.yarn_beta_fast", &rope->beta_fast) : status;
    status = status == LB_OK ? read_real(s, ".rope.scaling.yarn_beta_slow", &rope->beta_slow) : status;
    status = status == LB_OK
                 ? lb_gguf_whole(s, with_arch(s->arch, ".rope.scaling.original_context_length", key), false,
                                 &rope->original)
                 : status;
    status = status == LB_OK ? read_gguf_type(s, factor, &type) : status;
    status = status == LB_OK ? read_tensor(s, "rope_freqs.weight", rope->short_factor, &n) : status;
    if (status == LB_OK && n == 0) {
        status = read_tensor(s, "rope_factors_short.weight", rope->short_factor, &n);
        status =
            status == LB_OK ? read_tensor(s, "rope_factors_long.weight", rope->long_factor, &n_long) : status;
        if (status == LB_OK && n != n_long) {
            return lb_fail(s->detail, LB_E_FORMAT,
                           "%s: tensors rope_factors_long and rope_factors_short differ in length", s->what);
        }
    } else if (status == LB_OK) {
        memcpy(rope->long_factor, rope->short_factor, sizeof rope->long_factor);
    }
    if (status == LB_OK && n_long > 0 && rope->original == 0 && lb_gguf_has(s->file, key)) {
        status = lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is 0: rope_factors_short would never count",
                         s->what, key);
    }
    if (status != LB_OK) {
        return status;
    }
    rope->original = rope->original > 0 ? rope->original : c->max_position_embeddings;
    if (ext != 1 || (type == LB_ROPE_YARN && n > 0) || (attn != 1 && type == LB_ROPE_LINEAR) || attn == 0 ||
        (attn != 1 && type == LB_ROPE_DEFAULT && n == 0)) {
        return lb_fail(
            s->detail, LB_E_UNSUPPORTED,
            "%s: keys %s.rope.scaling.attn_factor %g and yarn_ext_factor %g are not supported here", s->what,
            s->arch, attn, ext);
    }
    rope->type = n > 0 ? LB_ROPE_LONGROPE : type;
    rope->n_factors = n;
    rope->factor = type == LB_ROPE_DEFAULT ? 0 : factor;
    for (int64_t i = 0; i < n && type == LB_ROPE_LINEAR; i++) {
        rope->short_factor[i] *= factor;
        rope->long_factor[i] *= factor;
    }
    if (rope->type == LB_ROPE_LONGROPE) {
        rope->factor = 1;
        rope->attention_factor = attn;
    } else if (type == LB_ROPE_YARN && attn != 1) {
        rope->attention_factor = attn * lb_rope_attention_factor(c);
    }
    if (rope->type == LB_ROPE_DEFAULT || rope->type == LB_ROPE_LINEAR) {
        rope->original = form->missing.rope.original;
    }
    return LB_OK;
}

void lb_rope_put_gguf(const struct lb_config_form *form, const struct lb_config *c, struct lb_gguf_out *out) {
    const struct lb_rope_scaling *rope = &c->rope;
    char key[MAX_KEY];
    double attention = lb_rope_attention_factor(c);
    if (rope->type == LB_ROPE_LINEAR || rope->type == LB_ROPE_YARN) {
        lb_gguf_put_string(out, with_arch(form->gguf, ".rope.scaling.type", key), type_names[rope->type]);
        lb_gguf_put_f32(out, with_arch(form->gguf, ".rope.scaling.factor", key),
                        rope->factor > 0 ? (float)rope->factor
                                         : (float)c->max_position_embeddings / (float)rope->original);
    }
    if (rope->type == LB_ROPE_YARN || rope->type == LB_ROPE_LONGROPE) {
        lb_gguf_put_u32(out, with_arch(form->gguf, ".rope.scaling.original_context_length", key),
                        (uint32_t)rope->original);
    }
    if (rope->type == LB_ROPE_YARN && rope->beta_fast > 0) {
        lb_gguf_put_f32(out, with_arch(form->gguf, ".rope.scaling.yarn_beta_fast", key),
                        (float)rope->beta_fast);
    }
    if (rope->type == LB_ROPE_YARN && rope->beta_slow > 0) {
        lb_gguf_put_f32(out, with_arch(form->gguf, ".rope.scaling.yarn_beta_slow", key),
                        (float)rope->beta_slow);
    }
    if (rope->type == LB_ROPE_YARN) { /* llama.cpp multiplies with what yarn's own formula gives */
        struct lb_config own = *c;
        own.rope.attention_factor = own.rope.mscale = 0;
        attention /= lb_rope_attention_factor(&own);
    }
    if (attention != 1) {
        lb_gguf_put_f32(out, with_arch(form->gguf, ".rope.scaling.attn_factor", key), (float)attention);
    }
}
