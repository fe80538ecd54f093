/* Pairs of activations: which of the student's are compared with which of each teacher's, by the recipe's
 * list or by a rule that the depths of both resolve, and what that asks of the teacher. */
#include "trainer/learn/parts.h"

#include <stdio.h>

/* ---- layers by a rule ----
 *
 * Of a student with M blocks and a teacher with N, hidden_states.s with hidden_states.t:
 *   uniform (TinyBERT, Jiao et al. 2020, g(m) = m N / M)  s = 0 .. M,     t = s N / M, rounded
 *   skip    (PKD-skip, Sun et al. 2019)                   s = 1 .. M - 1, t = s N / M, rounded
 *   last    (PKD-last)                                    s = 1 .. M - 1, t = N - M + s
 * The last layers of both are not among the latter two's: the distributions are made of them. Attention that
 * a block makes of them counts from 0: one less of each, and the embeddings have none. */

static int64_t blocks_of(const struct lb_model *student) {
    const struct lb_config *c = lb_model_config(student);
    return c->input_size > 0 ? c->n_hidden : c->num_hidden_layers;
}

static enum lb_status check_depths(const struct lb_plan *plan, unsigned l, unsigned k, int64_t own,
                                   int64_t its, struct lb_detail *detail) {
    const char *teacher = plan->recipe->teachers[k].name;
    if (its < 1) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u.layer_mapping: teacher %s does not tell how many layers it has; "
                       "list the pairs",
                       l, teacher);
    }
    enum lb_layer_rule rule = plan->recipe->loss_functions[l].layer_rule;
    if (rule != LB_LAYERS_LISTED && its < own) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u.layer_mapping: the student has %lld layers, teacher %s has %lld: "
                       "no rule says which are alike; list the pairs",
                       l, (long long)own, teacher, (long long)its);
    }
    if (own < 2 && (rule == LB_LAYERS_SKIP || rule == LB_LAYERS_LAST)) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u.layer_mapping: skip and last leave out the last layer, and the "
                       "student has no other; use uniform, or list the pairs",
                       l);
    }
    return LB_OK;
}

/* The i-th pair of the rule; false: there is none. */
static bool by_rule(enum lb_layer_rule rule, bool attention, int64_t own, int64_t its, int64_t i,
                    struct lb_layer_pair *out) {
    int64_t s = rule == LB_LAYERS_UNIFORM && !attention ? i : i + 1;
    if (s > (rule == LB_LAYERS_UNIFORM ? own : own - 1)) {
        return false;
    }
    int64_t t = rule == LB_LAYERS_LAST ? its - own + s : (2 * s * its + own) / (2 * own);
    *out = (struct lb_layer_pair){attention ? s - 1 : s, attention ? t - 1 : t};
    return true;
}

/* The i-th pair of loss l with a teacher of that depth; false: there is none. */
static bool layers_at(const struct lb_plan *plan, const struct lb_model *student, unsigned l, int64_t its,
                      int64_t i, struct lb_layer_pair *out) {
    const struct lb_recipe_loss *from = &plan->recipe->loss_functions[l];
    bool by_block = lb_loss_by_block(plan->losses[l].loss);
    if (from->layer_rule != LB_LAYERS_LISTED) {
        return by_rule(from->layer_rule, by_block, blocks_of(student), its, i, out);
    }
    if (from->layer_mapping_count == 0) {
        *out = by_block ? (struct lb_layer_pair){blocks_of(student) - 1, its - 1}
                        : (struct lb_layer_pair){-1, -1};
        return i == 0;
    }
    *out = from->layer_mapping[i < from->layer_mapping_count ? i : 0];
    return i < from->layer_mapping_count;
}

/* ---- pairs ----
 */

/* A classifier's final state is one row a text, other states are one a token: these go with each other, and a
 * loss has either. */
static enum lb_status check_once(struct lb_plan *plan, const struct lb_model *student, struct lb_pair *p,
                                 struct lb_detail *detail) {
    const struct lb_teacher_info *info = plan->info[p->teacher];
    bool once = info->input_size == 0 && lb_info_once(info, p->kind), first = true;
    p->once = p->final && (lb_model_labels(student) != NULL);
    for (const struct lb_pair *q = plan->pairs; q < p; q++) {
        first = first && q->loss != p->loss;
    }
    if (p->once != once) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u.layer_mapping: the final state of a classifier (-1) is one row a "
                       "text, and %s's is one a token; compare -1 with a classifier's -1, other layers with "
                       "other layers",
                       p->loss, once ? "the student" : "the teacher");
    }
    if (!first && plan->losses[p->loss].once != once) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u.layer_mapping: the final state of a classifier (-1) is one row a "
                       "text, other layers are one a token; give each an entry of its own",
                       p->loss);
    }
    plan->losses[p->loss].once = once;
    return LB_OK;
}

/* Whether there is what the loss compares: rows of a text, or of a batch that nothing cuts. */
static enum lb_status check_groups(const struct lb_plan *plan, const struct lb_model *student,
                                   const struct lb_pair *p, struct lb_detail *detail) {
    const struct lb_recipe *r = plan->recipe;
    const struct lb_loss *loss = plan->losses[p->loss].loss;
    bool of_batch = lb_pair_once(student, p);
    if (plan->losses[p->loss].args.first_token && lb_model_is_causal(student)) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u.first_token: a %s's first position has seen nothing of the text; "
                       "leave it out",
                       p->loss, lb_model_config(student)->model_type);
    }
    if (loss->among == LB_AMONG_NONE || !of_batch) {
        return LB_OK;
    }
    if (loss->among == LB_AMONG_POSITIONS) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u: %s compares positions of a text, and here a sample has one row; "
                       "similarity_preserving compares samples",
                       p->loss, loss->name);
    }
    if (r->gradient_accumulation_steps > 1 || r->per_device_train_batch_size < 2) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u: %s compares the samples of a batch with each other: set "
                       "gradient_accumulation_steps: 1, which would cut it, and "
                       "per_device_train_batch_size to all that are to be compared",
                       p->loss, loss->name);
    }
    return LB_OK;
}

/* The widths of both sides' states, with a projection between them where they differ. */
static enum lb_status match_states(struct lb_plan *plan, struct lb_model *student, struct lb_pair *p,
                                   struct lb_detail *detail) {
    const struct lb_config *c = lb_model_config(student);
    enum lb_status status = p->kind == LB_OUT_SENTENCE ? LB_OK : check_once(plan, student, p, detail);
    p->student_width = lb_model_width(student);
    if (!p->final && c->input_size > 0) {
        p->student_width = p->tap.layer == 0 ? c->input_size : c->hidden_sizes[p->tap.layer - 1];
    }
    p->teacher_width = lb_info_state_width(plan->info[p->teacher], p->kind, p->layer);
    status = status == LB_OK ? check_groups(plan, student, p, detail) : status;
    if (status == LB_OK && p->teacher_width < 1) {
        return LB_OK; /* as above */
    }
    bool project = !plan->losses[p->loss].loss->any_width && p->student_width != p->teacher_width;
    if (status == LB_OK && project) {
        snprintf(p->projection, sizeof p->projection, "projection.%u.%zu.weight", p->loss, plan->n_pairs);
        status = lb_model_extend(student, p->projection, p->teacher_width, p->student_width,
                                 (uint64_t)plan->recipe->seed, detail);
    }
    return status;
}

/* Queries, keys or values of both sides, cut into as many relation heads. */
static enum lb_status match_relations(struct lb_plan *plan, const struct lb_model *student, struct lb_pair *p,
                                      struct lb_detail *detail) {
    struct lb_loss_args *args = &plan->losses[p->loss].args;
    char output[LB_MAX_NAME];
    lb_output_format(p->kind, p->layer, output);
    p->student_width = lb_model_tap_width(student, p->tap.kind, p->tap.layer);
    p->teacher_width = lb_info_state_width(plan->info[p->teacher], p->kind, p->layer);
    if (args->relation_heads == 0) {
        args->relation_heads = lb_model_config(student)->num_attention_heads;
    }
    if (p->teacher_width < 1) {
        return lb_fail(
            detail, LB_E_ARG,
            "loss_functions.%u: teacher %s does not give %s, of which %s is made; limbeckd does, of "
            "decoders and encoders",
            p->loss, plan->recipe->teachers[p->teacher].name, output, plan->losses[p->loss].loss->name);
    }
    if (p->student_width % args->relation_heads != 0 || p->teacher_width % args->relation_heads != 0) {
        return lb_fail(
            detail, LB_E_ARG,
            "loss_functions.%u.relation_heads: %lld heads do not divide the student's %lld columns "
            "and the %lld of %s of teacher %s; set one that divides both",
            p->loss, (long long)args->relation_heads, (long long)p->student_width,
            (long long)p->teacher_width, output, plan->recipe->teachers[p->teacher].name);
    }
    return LB_OK;
}

/* Makes pair (student layer, teacher layer) of loss l for teacher k. */
static enum lb_status add_pair(struct lb_plan *plan, struct lb_model *student, unsigned l, unsigned k,
                               struct lb_layer_pair layers, struct lb_detail *detail) {
    static const enum lb_tap_kind taps[] = {
        [LB_ON_HIDDEN] = LB_TAP_HIDDEN,       [LB_ON_SENTENCE] = LB_TAP_HIDDEN,
        [LB_ON_ATTENTION] = LB_TAP_ATTENTION, [LB_ON_QUERIES] = LB_TAP_QUERIES,
        [LB_ON_KEYS] = LB_TAP_KEYS,           [LB_ON_VALUES] = LB_TAP_VALUES};
    const struct lb_recipe *r = plan->recipe;
    const struct lb_teacher_info *info = plan->info[k];
    bool by_block = lb_loss_by_block(plan->losses[l].loss);
    bool sentence = plan->losses[l].loss->on == LB_ON_SENTENCE;
    if (sentence && lb_model_sentence(student)->kind == LB_POOL_NONE) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u: the student does not pool its states to a sentence's embedding; "
                       "only encoders do, those from a folder as its modules.json says",
                       l);
    }
    if (plan->n_pairs == LB_MAX_PAIRS) {
        return lb_fail(detail, LB_E_LIMIT, "loss_functions: more than %d pairs of layers and teachers",
                       LB_MAX_PAIRS);
    }
    struct lb_pair *p = &plan->pairs[plan->n_pairs];
    *p = (struct lb_pair){.loss = l, .teacher = k, .layer = (int)layers.teacher};
    p->final = !by_block && layers.student < 0;
    p->tap.kind = taps[plan->losses[l].loss->on];
    p->tap.layer = (int)layers.student;
    if (!p->final) {
        enum lb_status status = lb_model_check_tap(student, p->tap.kind, p->tap.layer, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "loss_functions.%u.layer_mapping: the student", l);
            return status;
        }
    }
    bool told = info->n_layers > 0; /* else the plan's end says what such a server gives */
    if (told && layers.teacher >= (by_block ? info->n_layers : info->n_layers + 1)) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u.layer_mapping: teacher %s has no layer %lld, its last is %lld", l,
                       r->teachers[k].name, (long long)layers.teacher,
                       (long long)(by_block ? info->n_layers - 1 : info->n_layers));
    }
    enum lb_status status = LB_OK;
    if (plan->losses[l].loss->on == LB_ON_ATTENTION) {
        p->kind = LB_OUT_ATTENTION;
        p->student_width = lb_model_config(student)->num_attention_heads;
        p->teacher_width = info->n_heads;
    } else if (by_block) {
        p->kind = (enum lb_output_kind)(LB_OUT_QUERIES + (plan->losses[l].loss->on - LB_ON_QUERIES));
        status = match_relations(plan, student, p, detail);
    } else {
        p->kind = sentence ? LB_OUT_SENTENCE : layers.teacher < 0 ? LB_OUT_HIDDEN_FINAL : LB_OUT_HIDDEN;
        p->layer = layers.teacher < 0 ? 0 : p->layer;
        status = match_states(plan, student, p, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    plan->n_pairs++;
    enum lb_datatype wide = r->fp16_targets ? LB_DT_FP16 : LB_DT_FP32;
    return lb_plan_ask(&plan->spec[k], p->kind, p->layer, wide, detail);
}

enum lb_status lb_plan_pairs(struct lb_plan *plan, struct lb_model *student, unsigned l,
                             struct lb_detail *detail) {
    bool rule = plan->recipe->loss_functions[l].layer_rule != LB_LAYERS_LISTED;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        if (!lb_plan_learns(plan, l, k)) {
            continue;
        }
        struct lb_layer_pair layers;
        int64_t own = blocks_of(student), its = plan->info[k]->n_layers;
        bool last = lb_loss_by_block(plan->losses[l].loss) &&
                    plan->recipe->loss_functions[l].layer_mapping_count == 0;
        enum lb_status status = rule || last ? check_depths(plan, l, k, own, its, detail) : LB_OK;
        for (int64_t i = 0; status == LB_OK && layers_at(plan, student, l, its, i, &layers); i++) {
            status = add_pair(plan, student, l, k, layers, detail);
        }
        if (status != LB_OK) {
            return status;
        }
    }
    return LB_OK;
}
