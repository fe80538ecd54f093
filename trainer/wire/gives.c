/* What a teacher gives: the ladder, and what is asked of a server's rungs. */
#include "common/base/buf.h"
#include "trainer/wire/answer.h"

#include <math.h>

#define HOSTS_CAP 20 /* what servers list at most unless they are told to list more */

/* ---- the ladder ---- */

const char *lb_rung_name(enum lb_rung rung) {
#define NAME(kind, name) name,
    static const char *const names[] = {LB_RUNGS(NAME)};
#undef NAME
    return names[rung];
}

const char *lb_rungs_text(void) {
    return "own token -> top-20 -> top-k -> chosen ids -> full logits -> final state -> inner layers";
}

enum lb_rung lb_output_rung(enum lb_output_kind kind) {
    const struct lb_output *output = lb_output_get(kind);
    switch (output->source) {
    case LB_FROM_FINAL:
    case LB_FROM_SENTENCE:
        return LB_RUNG_FINAL;
    case LB_FROM_HIDDEN:
    case LB_FROM_RESIDUAL:
    case LB_FROM_QUERIES:
    case LB_FROM_KEYS:
    case LB_FROM_VALUES:
    case LB_FROM_ATTENTION:
        return LB_RUNG_INNER;
    case LB_FROM_LOGITS:
        break;
    }
    return output->uses & LB_USES_NEXT_TOKEN  ? LB_RUNG_OWN
           : output->uses & LB_USES_TOP_K     ? LB_RUNG_TOP_K
           : output->uses & LB_USES_SCORE_IDS ? LB_RUNG_CHOSEN
                                              : LB_RUNG_LOGITS;
}

unsigned lb_info_rungs(const struct lb_teacher_info *info) {
    unsigned rungs = 0;
    for (size_t i = 0; i < info->n_given; i++) {
        rungs |= 1u << lb_output_rung((enum lb_output_kind)info->given[i].kind);
    }
    if (rungs & 1u << LB_RUNG_TOP_K) {
        rungs |= 1u << LB_RUNG_TOP_20;
        if (info->most_top_k > 0 && info->most_top_k <= HOSTS_CAP) {
            rungs &= ~(1u << LB_RUNG_TOP_K);
        }
    }
    return rungs;
}

/* "logits, hidden_states.0 to 3, ...": what a teacher lists, in its order, runs of layers as one. */
static void put_given(const struct lb_teacher_info *info, struct lb_buf *out) {
    for (size_t i = 0, next; i < info->n_given; i = next) {
        const struct lb_given *first = &info->given[i];
        char name[LB_MAX_NAME];
        next = i + 1;
        while (next < info->n_given && info->given[next].kind == first->kind &&
               info->given[next].layer == first->layer + (next - i)) {
            next++;
        }
        lb_output_format((enum lb_output_kind)first->kind, first->layer, name);
        lb_buf_printf(out, "%s%s", i ? ", " : "", name);
        if (next - i > 1) {
            lb_buf_printf(out, " to %d", info->given[next - 1].layer);
        }
    }
}

/* "own token, top-20": those of the ladder. */
static void put_rungs(unsigned rungs, struct lb_buf *out) {
    bool first = true;
    for (int r = LB_RUNG_OWN; r < LB_N_RUNGS; r++) {
        if (rungs >> r & 1) {
            lb_buf_printf(out, "%s%s", first ? "" : ", ", lb_rung_name((enum lb_rung)r));
            first = false;
        }
    }
}

static enum lb_status lacks(const struct lb_teacher_info *info, enum lb_output_kind kind, const char *output,
                            const char *name, struct lb_detail *detail) {
    struct lb_buf list, rungs;
    lb_buf_init(&list, 4096);
    lb_buf_init(&rungs, 256);
    put_given(info, &list);
    put_rungs(lb_info_rungs(info), &rungs);
    lb_fail(
        detail, LB_E_ARG,
        "teacher %s does not give %s, which this run needs; it gives %s. Of the ladder %s it has %s; this "
        "needs %s",
        name, output, list.data ? list.data : "nothing", lb_rungs_text(), rungs.data ? rungs.data : "none",
        lb_rung_name(lb_output_rung(kind)));
    lb_buf_finish(&list);
    lb_buf_finish(&rungs);
    return LB_E_ARG;
}

/* Servers that list but so many ids, and those whose distributions have no temperature. */
static enum lb_status check_lists(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                  const char *name, struct lb_detail *detail) {
    if (info->most_top_k > 0 && lb_spec_uses(spec, LB_USES_TOP_K) && spec->top_k > info->most_top_k &&
        info->vocab_size > info->most_top_k) {
        return lb_fail(detail, LB_E_ARG,
                       "teacher %s lists at most %lld ids of a row, and loss_top_k is %lld: set loss_top_k: "
                       "%lld; where the server was told to list more (vLLM: --max-logprobs), say so by the "
                       "teacher's max_logprobs",
                       name, (long long)info->most_top_k, (long long)spec->top_k,
                       (long long)info->most_top_k);
    }
    bool softened = (lb_spec_uses(spec, LB_USES_TEMPERATURE) && spec->temperature != 1) ||
                    (lb_spec_uses(spec, LB_USES_SAMPLES) && spec->sample_temperature > 0 &&
                     spec->sample_temperature != 1);
    if (info->plain_only && softened) {
        return lb_fail(detail, LB_E_ARG,
                       "teacher %s gives log-probabilities at temperature 1 only, and this run asks for %g: "
                       "set temperature: 1, or let it send what is exact at any (targets: final_hidden)",
                       name, spec->temperature);
    }
    return LB_OK;
}

enum lb_status lb_info_gives(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                             const char *name, struct lb_detail *detail) {
    for (size_t j = 0; j < spec->n_outputs; j++) {
        enum lb_output_kind kind = spec->outputs[j].kind;
        int64_t dim[LB_MAX_WIRE_DIMS];
        int n_dims = lb_answer_shape(info, spec, j, 1, 1, dim);
        char output[LB_MAX_NAME];
        lb_output_format(kind, spec->outputs[j].layer, output);
        if (info->n_given > 0 && !lb_info_given(info, kind, spec->outputs[j].layer)) {
            return lacks(info, kind, output, name, detail);
        }
        int64_t blocks = info->n_layers - (lb_output_get(kind)->source != LB_FROM_HIDDEN);
        if (info->n_given == 0 && lb_output_layered(kind) && info->n_layers > 0 &&
            (spec->outputs[j].layer < 0 || spec->outputs[j].layer > blocks)) {
            return lb_fail(detail, LB_E_ARG, "teacher %s has %lld layers, it does not give %s", name,
                           (long long)info->n_layers, output);
        }
        for (int d = 0; d < n_dims; d++) {
            if (dim[d] <= 0) {
                return lb_fail(detail, LB_E_ARG,
                               "teacher %s does not tell how wide its %s is: its metadata lack a size", name,
                               output);
            }
        }
    }
    return check_lists(info, spec, name, detail);
}

/* ---- fixed questions ---- */

double lb_probe_distance(const struct lb_told_probe *a, const struct lb_told_probe *b) {
    double sum = 0;
    for (int t = 0; t < a->n && t < b->n; t++) {
        sum += fabs((double)a->at[t] - (double)b->at[t]);
    }
    return a->n != b->n || a->n < 1 || isnan(sum) ? INFINITY : sum / a->n;
}

bool lb_probe_same(const struct lb_teacher_info *info, enum lb_probe which, const struct lb_told_probe *now) {
    const struct lb_told_probe *then = &info->probe[which];
    double size = 1, sum = 0;
    for (int t = 0; which == LB_PROBE_STATES && t < then->n; t++) {
        sum += (double)then->at[t] * (double)then->at[t];
    }
    if (which == LB_PROBE_STATES && then->n > 0) {
        size = sqrt(sum / then->n);
    }
    return lb_probe_distance(then, now) <= LB_PROBE_SLACK * size;
}
