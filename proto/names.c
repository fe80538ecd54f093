#include "proto/names.h"

#include <stdio.h>
#include <string.h>

static const struct {
    enum lb_output_kind kind;
    const char *name; /* a name that ends in a point is followed by a layer's number */
} names[] = {
    {LB_OUT_LOGITS, "logits"},
    {LB_OUT_TOPK_IDS, "logits.topk_ids"},
    {LB_OUT_TOPK_VALUES, "logits.topk_values"},
    {LB_OUT_LOGSUMEXP, "logsumexp"},
    {LB_OUT_ACTUAL, "logprobs.actual"},
    {LB_OUT_HIDDEN_FINAL, "hidden_states.final"},
    {LB_OUT_HIDDEN, "hidden_states."},
    {LB_OUT_ATTENTION, "attentions."},
};
#define N_NAMES (sizeof names / sizeof names[0])
#define MAX_LAYER_DIGITS 4

static bool takes_layer(const char *name) {
    return name[strlen(name) - 1] == '.';
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
    for (size_t i = 0; i < N_NAMES; i++) {
        int layer = 0;
        size_t len = strlen(names[i].name);
        bool same = takes_layer(names[i].name)
                        ? strncmp(name, names[i].name, len) == 0 && parse_layer(name + len, &layer)
                        : strcmp(name, names[i].name) == 0;
        if (same) {
            *out = (struct lb_output_name){.kind = names[i].kind, .layer = layer};
            return LB_OK;
        }
    }
    return lb_fail(
        detail, LB_E_NOTFOUND,
        "unknown output \"%.128s\"; there are logits, logits.topk_ids, logits.topk_values, logsumexp, "
        "logprobs.actual, hidden_states.N, hidden_states.final, attentions.N (N a layer's number)",
        name);
}

void lb_output_format(enum lb_output_kind kind, int layer, char out[LB_MAX_NAME]) {
    out[0] = '\0';
    for (size_t i = 0; i < N_NAMES; i++) {
        if (names[i].kind == kind && takes_layer(names[i].name)) {
            snprintf(out, LB_MAX_NAME, "%s%d", names[i].name, layer);
        } else if (names[i].kind == kind) {
            snprintf(out, LB_MAX_NAME, "%s", names[i].name);
        }
    }
}
