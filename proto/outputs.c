#include "proto/outputs.h"

#include <stdio.h>
#include <string.h>

#define MAX_LAYER_DIGITS 4

#define ROW(kind, name, own, others, source, width, numbers, uses, fill)                                     \
    [LB_OUT_##kind] = {                                                                                      \
        name, LB_DT_##own, LB_TYPES_##others, LB_FROM_##source, LB_WIDE_##width, LB_ARE_##numbers, uses},
static const struct lb_output rows[] = {LB_OUTPUTS(ROW)};

#define LISTED(kind, name, ...) ", " name
static const char names[] = LB_OUTPUTS(LISTED);

const struct lb_output *lb_output_get(enum lb_output_kind kind) {
    return &rows[kind];
}

const char *lb_output_names(void) {
    return names + strlen(", ");
}

/* Bytes of the name in front of the layer's number; 0: the name has none. */
static size_t prefix_of(const char *name) {
    size_t len = strlen(name);
    return len > 2 && strcmp(name + len - 2, ".N") == 0 ? len - 1 : 0;
}

bool lb_output_layered(enum lb_output_kind kind) {
    return prefix_of(rows[kind].name) > 0;
}

#define MAX_TYPES 4
static const enum lb_datatype types[][MAX_TYPES] = {
    [LB_TYPES_FLOATS] = {LB_DT_FP32, LB_DT_FP16, LB_DT_BF16},
    [LB_TYPES_LOGS] = {LB_DT_FP32, LB_DT_FP16, LB_DT_BF16, LB_DT_UINT8},
    [LB_TYPES_IDS] = {LB_DT_INT32, LB_DT_UINT16},
};

bool lb_output_comes_as(enum lb_output_kind kind, enum lb_datatype datatype) {
    bool listed = false;
    for (int i = 0; i < MAX_TYPES && rows[kind].others != LB_TYPES_NONE; i++) {
        listed = listed || types[rows[kind].others][i] == datatype;
    }
    return datatype != LB_DT_NONE && (datatype == rows[kind].own || listed);
}

const char *lb_output_types(enum lb_output_kind kind, char out[LB_OUTPUT_TYPES_TEXT]) {
    int at = snprintf(out, LB_OUTPUT_TYPES_TEXT, "%s", lb_datatype_name(rows[kind].own));
    for (int i = 0; i < MAX_TYPES && rows[kind].others != LB_TYPES_NONE; i++) {
        enum lb_datatype type = types[rows[kind].others][i];
        if (type != LB_DT_NONE && type != rows[kind].own) {
            at += snprintf(out + at, LB_OUTPUT_TYPES_TEXT - (size_t)at, ", %s", lb_datatype_name(type));
        }
    }
    return out;
}

/* A layer's number in its one spelling: 1 to 4 digits, no sign, no leading zero. */
static bool parse_layer(const char *text, int *out) {
    size_t len = strlen(text);
    if (len == 0 || len > MAX_LAYER_DIGITS || strspn(text, "0123456789") != len ||
        (text[0] == '0' && len > 1)) {
        return false;
    }
    int layer = 0;
    for (; *text; text++) {
        layer = layer * 10 + (*text - '0');
    }
    *out = layer;
    return true;
}

enum lb_status lb_output_parse(const char *name, struct lb_output_name *out, struct lb_detail *detail) {
    for (size_t i = 0; i < LB_N_OUTPUTS; i++) {
        int layer = 0;
        size_t len = prefix_of(rows[i].name);
        bool same = len > 0 ? strncmp(name, rows[i].name, len) == 0 && parse_layer(name + len, &layer)
                            : strcmp(name, rows[i].name) == 0;
        if (same) {
            *out = (struct lb_output_name){.kind = (enum lb_output_kind)i, .layer = layer};
            return LB_OK;
        }
    }
    return lb_fail(detail, LB_E_NOTFOUND, "unknown output \"%.128s\"; there are %s (N a layer's number)",
                   name, lb_output_names());
}

void lb_output_format(enum lb_output_kind kind, int layer, char out[LB_MAX_NAME]) {
    size_t len = prefix_of(rows[kind].name);
    if (len > 0) {
        snprintf(out, LB_MAX_NAME, "%.*s%d", (int)len, rows[kind].name, layer);
    } else {
        snprintf(out, LB_MAX_NAME, "%s", rows[kind].name);
    }
}

int lb_output_shape(enum lb_output_kind kind, const struct lb_output_sizes *sizes,
                    int64_t dim[LB_MAX_WIRE_DIMS]) {
    enum lb_output_width width = rows[kind].width;
    int n = 0;
    dim[n++] = sizes->sequences;
    if (width == LB_WIDE_KEYS) {
        dim[n++] = sizes->heads;
    }
    if (!sizes->classifier && width != LB_WIDE_SENTENCE) {
        dim[n++] = sizes->rows;
    }
    switch (width) {
    case LB_WIDE_ONE:
        break;
    case LB_WIDE_VOCAB:
        dim[n++] = sizes->vocab;
        break;
    case LB_WIDE_TOP_K:
        dim[n++] = sizes->top_k;
        break;
    case LB_WIDE_SCORED:
        dim[n++] = sizes->scored;
        break;
    case LB_WIDE_SAMPLES:
        dim[n++] = sizes->samples;
        break;
    case LB_WIDE_STATE:
    case LB_WIDE_SENTENCE:
        dim[n++] = sizes->state;
        break;
    case LB_WIDE_KEYS:
        dim[n++] = sizes->positions;
        break;
    }
    return n;
}
