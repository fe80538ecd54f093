/* The student: keys, read by the parser of config.json. Which keys a family has, what they mean and may hold
 * is written there only; here the mapping becomes a JSON object, with what a new student takes from
 * elsewhere. */
#include "common/model/families.h"
#include "trainer/recipe/fields.h"
#include "trainer/wire/url.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MLP_TYPE "limbeck_mlp"
#define MAX_NAMES 96
#define NEW_LENGTH 2048 /* max_position_embeddings of a new student, whatever its family's default */

/* The recipe's word for it is older than its use of this parser, and fingerprints know it. */
static const char *config_key(const char *key) {
    return strcmp(key, "norm_eps") == 0 ? "rms_norm_eps" : key;
}

bool lb_student_takes(const char *model_type, const char *key) {
    const char *name;
    for (size_t i = 0; (name = lb_family_key(model_type, i)) != NULL; i++) {
        if (strcmp(name, config_key(key)) == 0) {
            return true;
        }
    }
    return false;
}

static const struct lb_student_field *find_field(const char *key) {
    for (const struct lb_student_field *f = lb_student_fields; f->key != NULL; f++) {
        if (strcmp(config_key(f->key), config_key(key)) == 0) {
            return f;
        }
    }
    return NULL;
}

/* A key that the family doesn't have. */
static enum lb_status unknown_key(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                  const char *type, const char *path) {
    if (find_field(node->key) != NULL) {
        return lb_read_fail(r, node->line, path, "is no key of model_type %s", type);
    }
    const char *names[MAX_NAMES], *name;
    size_t n = 0;
    names[n++] = "model";
    names[n++] = "layers_from";
    for (size_t i = 0; n < MAX_NAMES && (name = lb_family_key(type, i)) != NULL; i++) {
        names[n++] = name;
    }
    if (n < MAX_NAMES && lb_student_takes(type, "norm_eps")) {
        names[n++] = "norm_eps";
    }
    return lb_read_unknown(r, node, "student", names, n);
}

/* The tokenizer decides about these. */
static bool comes_from_tokenizer(const char *key) {
    static const char *const keys[] = {"vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strcmp(key, keys[i]) == 0) {
            return true;
        }
    }
    return false;
}

static enum lb_status set(json_t *object, const char *key, json_t *value) {
    return json_object_set_new(object, key, value) == 0 ? LB_OK : LB_E_NOMEM;
}

static enum lb_status set_list(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *key,
                               const char *path, json_t *object) {
    if (node->kind != LB_YAML_LIST) {
        return lb_read_not_a(r, node, path, "a list ([...] or lines that begin with \"- \")");
    }
    json_t *list = json_array();
    enum lb_status status = list != NULL ? LB_OK : LB_E_NOMEM;
    unsigned i = 0;
    for (const struct lb_yaml *item = node->first; item != NULL && lb_read_goes_on(status);
         item = item->next, i++) {
        int64_t v = 0;
        const char *at = lb_arena_printf(r->arena, "%s.%u", path, i);
        enum lb_status one = at != NULL ? lb_read_int(r, item, at, -INFINITY, INFINITY, &v) : LB_E_NOMEM;
        if (one == LB_OK && json_array_append_new(list, json_integer(v)) != 0) {
            one = LB_E_NOMEM;
        }
        status = lb_read_both(status, one);
    }
    if (status != LB_OK) {
        json_decref(list);
        return status;
    }
    return set(object, key, list);
}

/* A value of a key that only the family knows, typed as YAML does. */
static enum lb_status set_plain(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                const char *path, json_t *object) {
    struct lb_recipe_reader quiet = {r->arena, NULL};
    int64_t whole = 0;
    double number = 0;
    bool truth = false;
    if (node->kind != LB_YAML_SCALAR) {
        return lb_read_not_a(r, node, path, "a number, a text, true or false");
    }
    json_t *value = NULL;
    if (node->plain && lb_read_int(&quiet, node, path, -INFINITY, INFINITY, &whole) == LB_OK) {
        value = json_integer(whole);
    } else if (node->plain && lb_read_float(&quiet, node, path, -INFINITY, INFINITY, &number) == LB_OK) {
        value = json_real(number);
    } else if (node->plain && lb_read_bool(&quiet, node, path, &truth) == LB_OK) {
        value = json_boolean(truth);
    } else {
        value = json_string(node->text);
    }
    return set(object, node->key, value);
}

/* One key into the object that the parser is given. */
static enum lb_status set_key(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *path,
                              json_t *object) {
    const struct lb_student_field *f = find_field(node->key);
    const char *key = config_key(node->key), *text = NULL;
    int64_t whole = 0;
    double number = 0;
    bool truth = false;
    enum lb_status status;
    if (json_object_get(object, key) != NULL) {
        return lb_read_fail(r, node->line, path, "is given twice, under its other name too");
    }
    if (f == NULL) {
        return set_plain(r, node, path, object);
    }
    if (f->kind == LB_FIELD_INT) {
        status = lb_read_int(r, node, path, -INFINITY, INFINITY, &whole);
        return status == LB_OK ? set(object, key, json_integer(whole)) : status;
    }
    if (f->kind == LB_FIELD_FLOAT) {
        status = lb_read_float(r, node, path, -INFINITY, INFINITY, &number);
        return status == LB_OK ? set(object, key, json_real(number)) : status;
    }
    if (f->kind == LB_FIELD_BOOL) {
        status = lb_read_bool(r, node, path, &truth);
        return status == LB_OK ? set(object, key, json_boolean(truth)) : status;
    }
    if (f->kind == LB_FIELD_INTS) {
        return set_list(r, node, key, path, object);
    }
    status = lb_read_string(r, node, path, &text);
    return status == LB_OK ? set(object, key, json_string(text)) : status;
}

/* A new student's family, by which its keys are judged. */
static const char *type_of(const struct lb_yaml *map) {
    const struct lb_yaml *type = lb_yaml_find(map, "model_type");
    if (type != NULL && type->kind == LB_YAML_SCALAR && !lb_yaml_is_null(type)) {
        return type->text;
    }
    return lb_yaml_find(map, "input_size") != NULL ? MLP_TYPE : "llama";
}

/* A model on this machine. */
static enum lb_status take_model(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                 const char *path, const char **out) {
    enum lb_status status = lb_read_string(r, node, path, out);
    return status == LB_OK && lb_url_scheme(*out, NULL) != LB_SCHEME_NONE
               ? lb_read_fail(r, node->line, path,
                              "weights do not come over the network; give a folder or a .gguf file")
               : status;
}

/* layers_from: the model that the layers are of, and their numbers. */
static enum lb_status take_layers(const struct lb_recipe_reader *r, const struct lb_yaml *map,
                                  const char *path, struct lb_recipe_student *out) {
    static const char *const names[] = {"model", "layers"};
    const struct lb_yaml *model = lb_yaml_find(map, "model"), *layers = lb_yaml_find(map, "layers");
    if (map->kind != LB_YAML_MAP) {
        return lb_read_not_a(r, map, path, "a mapping {model: PATH, layers: [N, ...]}");
    }
    enum lb_status status = LB_OK;
    for (const struct lb_yaml *child = map->first; child != NULL; child = child->next) {
        if (child != model && child != layers) {
            status = lb_read_both(status, lb_read_unknown(r, child, path, names, 2));
        }
    }
    if (status != LB_OK) {
        return status;
    }
    if (model == NULL || layers == NULL || layers->kind != LB_YAML_LIST || layers->count == 0) {
        return lb_read_fail(r, map->line, path, "needs model: PATH and layers: [N, ...]");
    }
    status = take_model(r, model, "student.layers_from.model", &out->model);
    out->layers = lb_arena_array(r->arena, layers->count, sizeof *out->layers);
    if (out->layers == NULL) {
        return LB_E_NOMEM;
    }
    for (const struct lb_yaml *item = layers->first; item != NULL; item = item->next) {
        status = lb_read_both(status, lb_read_int(r, item, "student.layers_from.layers", 0, LB_MAX_LAYERS - 1,
                                                  &out->layers[out->layers_count]));
        out->layers_count++;
    }
    return status;
}

static enum lb_status take_key(const struct lb_recipe_reader *r, const struct lb_yaml *map,
                               const struct lb_yaml *node, const char *path, json_t *object,
                               struct lb_recipe_student *out) {
    const char *type = type_of(map);
    bool known_type = lb_family_key(type, 0) != NULL;
    if (strcmp(node->key, "model") == 0) {
        return take_model(r, node, path, &out->model);
    }
    if (strcmp(node->key, "layers_from") == 0) {
        return take_layers(r, node, path, out);
    }
    bool given = lb_yaml_find(map, "model") != NULL || lb_yaml_find(map, "layers_from") != NULL;
    if (given && strcmp(node->key, "num_labels") == 0) {
        return lb_read_int(r, node, path, 1, LB_MAX_LABELS, &out->num_labels);
    }
    if (comes_from_tokenizer(node->key)) {
        return lb_read_fail(r, node->line, path, "comes from the tokenizer; drop the key");
    }
    /* Of an unknown family nothing is known: the parser says so. */
    if (known_type && !lb_student_takes(type, node->key)) {
        return unknown_key(r, node, type, path);
    }
    return set_key(r, node, path, object);
}

/* The mapping's keys into object, or model into out. */
static enum lb_status take_keys(const struct lb_recipe_reader *r, struct lb_yaml *map, json_t *object,
                                struct lb_recipe_student *out) {
    enum lb_status status = LB_OK;
    for (struct lb_yaml *child = map->first, *next = NULL; child != NULL && lb_read_goes_on(status);
         child = next) {
        next = child->next;
        if (lb_yaml_is_null(child)) {
            lb_yaml_remove(map, child);
            continue;
        }
        const char *path = lb_arena_printf(r->arena, "student.%s", child->key);
        enum lb_status one = path != NULL ? lb_read_empty(r, child, path) : LB_E_NOMEM;
        one = one == LB_OK ? take_key(r, map, child, path, object, out) : one;
        status = lb_read_both(status, one);
    }
    for (const struct lb_yaml *child = map->first; out->model != NULL && child != NULL; child = child->next) {
        bool head = strcmp(child->key, "num_labels") == 0;
        if (!head && strcmp(child->key, out->layers_count > 0 ? "layers_from" : "model") != 0) {
            const char *path = lb_arena_printf(r->arena, "student.%s", child->key);
            return path == NULL ? LB_E_NOMEM
                                : lb_read_fail(r, child->line, path,
                                               "student.%s brings its own configuration; drop one of the two",
                                               out->layers_count > 0 ? "layers_from" : "model");
        }
    }
    return status;
}

/* The keys that only the family knows, as they are written back. */
static enum lb_status keep_others(const struct lb_recipe_reader *r, json_t *object, const struct lb_yaml *map,
                                  struct lb_recipe_student *out) {
    struct lb_buf buf;
    lb_buf_init(&buf, LB_YAML_MAX_BYTES);
    for (const struct lb_yaml *child = map->first; child != NULL; child = child->next) {
        if (find_field(child->key) == NULL) {
            lb_buf_printf(&buf, "  %s: ", child->key);
            lb_json_dump(json_object_get(object, child->key), 0, &buf);
            lb_buf_append_str(&buf, "\n");
        }
    }
    enum lb_status status = lb_buf_status(&buf);
    if (status == LB_OK && buf.len > 0) {
        out->others = lb_arena_strdup(r->arena, buf.data);
        status = out->others != NULL ? LB_OK : LB_E_NOMEM;
    }
    lb_buf_finish(&buf);
    return status == LB_OK ? LB_OK : LB_E_NOMEM;
}

/* What a new student takes from the recipe and not from its family's defaults. The tokenizer decides about
 * the vocabulary, later: the largest one stands for it. */
static enum lb_status add_defaults(const char *type, json_t *object) {
    enum lb_status status = LB_OK;
    if (json_object_get(object, "model_type") == NULL) {
        status = set(object, "model_type", json_string(type));
    }
    if (status != LB_OK || strcmp(type, MLP_TYPE) == 0) {
        return status;
    }
    json_t *heads = json_object_get(object, "num_attention_heads");
    if (heads != NULL && json_object_get(object, "num_key_value_heads") == NULL &&
        lb_student_takes(type, "num_key_value_heads")) {
        status = set(object, "num_key_value_heads", json_integer(json_integer_value(heads)));
    }
    if (status == LB_OK && json_object_get(object, "max_position_embeddings") == NULL &&
        lb_student_takes(type, "max_position_embeddings")) {
        status = set(object, "max_position_embeddings", json_integer(NEW_LENGTH));
    }
    static const char *const tokens[] = {"bos_token_id", "eos_token_id"};
    for (size_t i = 0; i < 2 && status == LB_OK; i++) {
        status = set(object, tokens[i], json_null());
    }
    return status == LB_OK ? set(object, "vocab_size", json_integer(INT32_MAX)) : status;
}

/* The parser's complaint "student: KEY ...", with the line of that key; not when something is wrong with the
 * key already. */
static enum lb_status point_to(const struct lb_recipe_reader *r, const struct lb_yaml *map,
                               enum lb_status status, const struct lb_detail *found) {
    const char *text = found->text + strcspn(found->text, " ");
    text += strspn(text, " ");
    char whole[LB_DETAIL_TEXT], path[128];
    int line = map->line;
    for (const struct lb_yaml *child = map->first; child != NULL; child = child->next) {
        size_t n = strlen(child->key);
        if (strncmp(text, child->key, n) == 0 && strcspn(text, " :[.") == n) {
            line = child->line;
        }
    }
    snprintf(path, sizeof path, "student.%.*s", (int)strcspn(text, " :[."), text);
    if (status == LB_E_NOMEM || lb_mistakes_touch(r->mistakes, path)) {
        return status;
    }
    const char *remedy = strstr(found->text, "is missing") != NULL
                             ? "; give the new student's sizes, or student.model to start from one"
                             : "";
    snprintf(whole, sizeof whole, "%.600s%s", text, remedy);
    lb_mistakes_meant(r->mistakes, path);
    return lb_mistakes_add_at(r->mistakes, status, line, "student", whole);
}

/* A new student's config: first each key by itself, so that all that are wrong are told; then, where none is
 * (status: of reading them), as a whole. */
static enum lb_status take_config(const struct lb_recipe_reader *r, const struct lb_yaml *map, json_t *object,
                                  enum lb_status status, struct lb_recipe_student *out) {
    struct lb_config config;
    enum lb_status one = add_defaults(type_of(map), object);
    status = lb_read_both(status, one);
    for (size_t i = 0; one != LB_E_NOTFOUND && lb_read_goes_on(status); i++) {
        struct lb_detail detail = {0};
        one = lb_config_try_key(object, "student", i, &detail);
        if (one != LB_OK && one != LB_E_NOTFOUND) {
            status = lb_read_both(status, point_to(r, map, one, &detail));
        }
    }
    if (status == LB_OK) {
        struct lb_detail detail = {0};
        status = lb_config_parse_new(object, "student", &config, &detail);
        status = status != LB_OK ? point_to(r, map, status, &detail) : LB_OK;
    }
    if (status == LB_OK) {
        out->config = config;
        out->config.vocab_size = 0; /* the tokenizer's */
        status = keep_others(r, object, map, out);
    }
    return status;
}

enum lb_status lb_student_read(const struct lb_recipe_reader *r, struct lb_yaml *map,
                               struct lb_recipe_student *out) {
    if (map->kind != LB_YAML_MAP) {
        return lb_read_not_a(r, map, "student", "a mapping of keys (key: value)");
    }
    json_t *object = json_object();
    enum lb_status status = object != NULL ? take_keys(r, map, object, out) : LB_E_NOMEM;
    if (lb_read_goes_on(status) && lb_yaml_find(map, "model") == NULL &&
        lb_yaml_find(map, "layers_from") == NULL) {
        status = take_config(r, map, object, status, out);
    }
    json_decref(object);
    return status;
}
