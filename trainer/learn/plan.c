#include "trainer/learn/plan.h"

#include "trainer/learn/parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Columns of the student's logits. */
static int64_t logits_of(const struct lb_model *m) {
    const struct lb_config *c = lb_model_config(m);
    return lb_model_is_classifier(m) ? c->num_labels : c->vocab_size;
}

static bool classifies_texts(const struct lb_model *m) {
    return lb_model_labels(m) != NULL;
}

enum lb_status lb_plan_ask(struct lb_ask_spec *spec, enum lb_output_kind kind, int layer,
                           enum lb_datatype datatype, struct lb_detail *detail) {
    for (size_t i = 0; i < spec->n_outputs; i++) {
        if (spec->outputs[i].kind == kind && spec->outputs[i].layer == layer) {
            return LB_OK;
        }
    }
    if (spec->n_outputs == LB_MAX_ASKED) {
        return lb_fail(detail, LB_E_LIMIT,
                       "loss_functions: more than %d outputs would be asked of one teacher", LB_MAX_ASKED);
    }
    spec->outputs[spec->n_outputs].kind = kind;
    spec->outputs[spec->n_outputs].layer = layer;
    spec->outputs[spec->n_outputs].datatype = datatype;
    spec->n_outputs++;
    return LB_OK;
}

static enum lb_status check_problem(const struct lb_labels *labels, const char *who,
                                    struct lb_detail *detail) {
    return lb_labels_problem(labels) == LB_PROBLEM_SINGLE
               ? LB_OK
               : lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s has problem_type %s: losses on logits take one class of several to hold "
                         "(single_label_classification); learn from its hidden states (hs_mse) instead",
                         who, lb_problem_name(lb_labels_problem(labels)));
}

/* Whether teacher k tells the student's classes apart. */
static enum lb_status check_classes(const struct lb_plan *plan, const struct lb_model *student, unsigned k,
                                    struct lb_detail *detail) {
    const struct lb_teacher_info *info = plan->info[k];
    const struct lb_labels *own = lb_model_labels(student);
    const char *name = plan->recipe->teachers[k].name;
    struct lb_labels its = {0};
    char who[LB_MAX_NAME];
    int64_t at = 0;
    if (info->num_labels != own->n) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "teacher %s tells %lld classes of texts apart (num_labels), the student %lld", name,
                       (long long)info->num_labels, (long long)own->n);
    }
    snprintf(who, sizeof who, "teacher %s", name);
    enum lb_status status = lb_info_labels(info, &its);
    if (status != LB_OK) {
        return lb_fail(detail, status, "out of memory for the labels of teacher %s", name);
    }
    status = check_problem(&its, who, detail);
    if (status == LB_OK && lb_labels_differ(own, &its, &at)) {
        status =
            lb_fail(detail, LB_E_MISMATCH,
                    "teacher %s calls class %lld \"%.60s\", the student \"%.60s\" (id2label): their logits "
                    "cannot be compared",
                    name, (long long)at, its.names[at], own->names[at]);
    }
    lb_labels_finish(&its);
    return status;
}

/* Draws: how often each id came, or, of another temperature's, what that says of its probability. Each
 * teacher draws by itself, the same for the same text whenever it is asked. */
static enum lb_status ask_samples(struct lb_plan *plan, unsigned k, struct lb_detail *detail) {
    const struct lb_recipe *r = plan->recipe;
    struct lb_ask_spec *spec = &plan->spec[k];
    bool weighed = r->sample_temperature != 0 && r->sample_temperature != r->temperature;
    spec->sample_count = r->sample_count;
    spec->seed = (uint64_t)r->seed + k;
    spec->sample_temperature = weighed ? r->sample_temperature : 0;
    enum lb_status status = lb_plan_ask(
        spec, LB_OUT_SAMPLE_IDS, 0, plan->info[k]->vocab_size <= 65536 ? LB_DT_UINT16 : LB_DT_INT32, detail);
    if (status != LB_OK) {
        return status;
    }
    return weighed ? lb_plan_ask(spec, LB_OUT_SAMPLE_WEIGHTS, 0, r->fp16_targets ? LB_DT_FP16 : LB_DT_FP32,
                                 detail)
                   : lb_plan_ask(spec, LB_OUT_SAMPLE_COUNTS, 0, LB_DT_UINT16, detail);
}

/* What losses on distributions ask of teacher k. */
static enum lb_status ask_lane(struct lb_plan *plan, const struct lb_model *student,
                               struct lb_teachers *teachers, unsigned k, struct lb_detail *detail) {
    const struct lb_recipe *r = plan->recipe;
    struct lb_ask_spec *spec = &plan->spec[k];
    enum lb_datatype wide = r->fp16_targets ? LB_DT_FP16 : LB_DT_FP32;
    enum lb_status status = LB_OK;
    const struct lb_vocab_map *map = plan->map[k];
    int64_t v = logits_of(student), whole = plan->info[k]->vocab_size;
    if (classifies_texts(student) && (status = check_classes(plan, student, k, detail)) != LB_OK) {
        return status;
    }
    if (map != NULL && (map->n != v || map->kept[map->n - 1] >= whole)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "the trimmed tokenizer keeps %d tokens up to id %d: the student has a vocabulary of %lld, "
            "teacher %s one of %lld",
            map->n, map->kept[map->n - 1], (long long)v, r->teachers[k].name, (long long)whole);
    }
    if (map == NULL && whole != v) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "teacher %s has a vocabulary of %lld, the student of %lld: distributions over unlike "
                       "vocabularies cannot "
                       "be compared; give the student the teacher's tokenizer",
                       r->teachers[k].name, (long long)whole, (long long)v);
    }
    if (map != NULL && (r->targets == LB_LANE_LOGITS || r->targets == LB_LANE_TOPK) &&
        plan->info[k]->max_vocab_maps > 0) {
        uint8_t digest[LB_SHA256_BYTES];
        lb_sha256(map->kept, (size_t)map->n * sizeof *map->kept, digest);
        lb_hex(digest, sizeof digest, spec->vocab_map);
        spec->n_kept = map->n;
        plan->kept[k] = true;
        whole = map->n;
    }
    /* What the teacher gives to tokens that the student lacks. */
    if (map != NULL && lb_lane_whole(r->targets)) {
        status = lb_plan_ask(spec, LB_OUT_LOGSUMEXP, 0, LB_DT_FP32, detail);
    }
    switch (r->targets) {
    case LB_LANE_FINAL:
        status = status == LB_OK ? lb_plan_ask(spec, LB_OUT_HIDDEN_FINAL, 0, wide, detail) : status;
        status = status == LB_OK ? lb_teachers_head(teachers, k, &plan->head[k], detail) : status;
        if (status == LB_OK && plan->head[k]->vocab_size != v) {
            return lb_fail(detail, LB_E_MISMATCH,
                           "teacher %s: its head has %lld rows for a vocabulary of %lld", r->teachers[k].name,
                           (long long)plan->head[k]->vocab_size, (long long)v);
        }
        break;
    case LB_LANE_LOGITS:
        status = status == LB_OK ? lb_plan_ask(spec, LB_OUT_LOGITS, 0, wide, detail) : status;
        break;
    case LB_LANE_SAMPLES:
        status = ask_samples(plan, k, detail);
        break;
    case LB_LANE_TOPK:
        status = lb_plan_ask(spec, LB_OUT_TOPK_IDS, 0, whole <= 65536 ? LB_DT_UINT16 : LB_DT_INT32, detail);
        status = status == LB_OK ? lb_plan_ask(spec, LB_OUT_TOPK_VALUES, 0, wide, detail) : status;
        status = status == LB_OK ? lb_plan_ask(spec, LB_OUT_REST, 0, LB_DT_FP32, detail) : status;
        if (plan->kept[k] && status == LB_OK) {
            status = lb_plan_ask(spec, LB_OUT_OUTSIDE, 0, LB_DT_FP32, detail);
        }
        break;
    }
    return status;
}

/* The labels' log-probabilities at temperature 1, whatever the lane's question is asked at. */
static enum lb_status ask_labels(struct lb_plan *plan, unsigned k, struct lb_detail *detail) {
    bool plain = plan->spec[k].temperature == 1;
    return lb_plan_ask(&plan->spec[k], plain ? LB_OUT_ACTUAL : LB_OUT_NEXT, 0, LB_DT_FP32, detail);
}

/* Whether a loss on distributions that counts learns from teacher k. */
static bool has_gradient(const struct lb_plan *plan, unsigned k) {
    bool any = false;
    for (size_t l = 0; l < plan->n_losses; l++) {
        bool counts = plan->losses[l].args.weight > 0 || plan->losses[l].annealing.weight > 0;
        any = any || (plan->losses[l].loss->on == LB_ON_TARGET && counts && lb_plan_learns(plan, l, k));
    }
    return any;
}

/* Whether the mixture can weigh teacher k by its distributions, which the lane brings. */
static enum lb_status check_weighed(const struct lb_plan *plan, const struct lb_model *student, unsigned k,
                                    struct lb_detail *detail) {
    if ((lb_plan_needs(plan) & LB_NEEDS_GRADIENTS) != 0 && !has_gradient(plan, k)) {
        return lb_fail(
            detail, LB_E_ARG,
            "mixture: %s weighs teachers by their gradients at the student's logits, and no loss on "
            "distributions (kl, ...) learns from %s; add one, or use mean_losses",
            plan->mixture->name, plan->recipe->teachers[k].name);
    }
    if ((lb_plan_needs(plan) & LB_NEEDS_DISTRIBUTIONS) == 0) {
        return LB_OK;
    }
    if (plan->unlike[k]) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "mixture: %s weighs teachers by their distributions, and teacher %s has another "
                       "vocabulary than the student; weigh by the labels (ca_mkd, or mixture_by: ce)",
                       plan->mixture->name, plan->recipe->teachers[k].name);
    }
    return lb_model_head(student)->weight != NULL
               ? LB_OK
               : lb_fail(detail, LB_E_ARG,
                         "mixture: %s weighs teachers by their distributions over the student's classes, and "
                         "a %s without a head has none; use mean_losses",
                         plan->mixture->name, lb_model_config(student)->model_type);
}

/* The lists of a teacher that reads other tokens. */
static enum lb_status ask_aligned(struct lb_plan *plan, unsigned k, struct lb_detail *detail) {
    const char *name = plan->recipe->teachers[k].name;
    struct lb_ask_spec *spec = &plan->spec[k];
    if (!plan->unlike[k]) {
        return lb_fail(
            detail, LB_E_ARG,
            "teacher %s: uld and uld_hybrid compare unlike vocabularies, and this one reads the "
            "student's tokens (or does not tell which it reads, or other losses learn from it); use kl",
            name);
    }
    if (!plan->apart[k]) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "teacher %s: mixture: %s reads its distributions in the student's tokens; use "
                       "mean_losses",
                       name, plan->mixture->name);
    }
    bool wide = plan->info[k]->vocab_size > 65536;
    enum lb_status status = lb_plan_ask(spec, LB_OUT_TOPK_IDS, 0, wide ? LB_DT_INT32 : LB_DT_UINT16, detail);
    enum lb_datatype floats = plan->recipe->fp16_targets ? LB_DT_FP16 : LB_DT_FP32;
    status = status == LB_OK ? lb_plan_ask(spec, LB_OUT_TOPK_VALUES, 0, floats, detail) : status;
    return status == LB_OK ? lb_plan_ask(spec, LB_OUT_REST, 0, LB_DT_FP32, detail) : status;
}

/* What the mixture's weights ask of teacher k, whether a loss reads its distribution or not. */
static enum lb_status ask_weights(struct lb_plan *plan, const struct lb_model *student, unsigned k,
                                  struct lb_detail *detail) {
    const struct lb_recipe *r = plan->recipe;
    const struct lb_teacher_info *info = plan->info[k];
    if ((lb_plan_needs(plan) & LB_NEEDS_CROSS_ENTROPY) == 0) {
        return LB_OK;
    }
    if (!lb_model_is_classifier(student)) {
        return ask_labels(plan, k, detail);
    }
    if (info->vocab_size != logits_of(student)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "teacher %s has %lld classes, the student %lld: %s weighs it by the labels' cross entropy",
            r->teachers[k].name, (long long)info->vocab_size, (long long)logits_of(student),
            plan->mixture->name);
    }
    if (info->vocab_size > LB_MAX_CE_CLASSES || info->hidden_size > LB_MAX_CE_WIDTH) {
        return lb_fail(detail, LB_E_LIMIT,
                       "teacher %s: %s reads classifiers of up to %d classes and width %d",
                       r->teachers[k].name, plan->mixture->name, LB_MAX_CE_CLASSES, LB_MAX_CE_WIDTH);
    }
    bool at_hand = !plan->apart[k] && lb_lane_whole(r->targets); /* the lane has the logits */
    return at_hand ? LB_OK
                   : lb_plan_ask(&plan->spec[k], LB_OUT_LOGITS, 0, r->fp16_targets ? LB_DT_FP16 : LB_DT_FP32,
                                 detail);
}

static void name_loss(struct lb_plan *plan, unsigned l) {
    const struct lb_loss *loss = plan->losses[l].loss;
    char place[16] = "";
    for (unsigned i = 0; i < l; i++) {
        if (plan->losses[i].loss == loss) {
            snprintf(place, sizeof place, ".%u", l);
        }
    }
    snprintf(plan->losses[l].name, sizeof plan->losses[l].name, "%s%s", loss->name, place);
}

/* The sources that a loss is not on. */
static unsigned texts_without(enum lb_loss_text on) {
    enum {
        DATASET = 1 << LB_SOURCE_DATASET,
        TEACHER = 1 << LB_SOURCE_TEACHER,
        STUDENT = 1 << LB_SOURCE_STUDENT
    };
    static const unsigned off[] = {[LB_TEXT_ALL] = 0,
                                   [LB_TEXT_DATASET] = TEACHER | STUDENT,
                                   [LB_TEXT_TEACHER] = DATASET | STUDENT,
                                   [LB_TEXT_STUDENT] = DATASET | TEACHER,
                                   [LB_TEXT_GIVEN] = STUDENT};
    return off[on];
}

static enum lb_status add_loss(struct lb_plan *plan, struct lb_model *student, unsigned l,
                               struct lb_detail *detail) {
    const struct lb_recipe_loss *from = &plan->recipe->loss_functions[l];
    const struct lb_loss *loss = lb_loss_find(from->function);
    plan->losses[l].loss = loss;
    plan->losses[l].args = from->args;
    plan->losses[l].off = texts_without(from->on);
    if (from->args.temperature == 0) {
        plan->losses[l].args.temperature = plan->recipe->temperature;
    }
    lb_loss_fill(loss, &plan->losses[l].args);
    struct lb_annealing *annealing = &plan->losses[l].annealing;
    annealing->kind = from->anneal;
    annealing->steps = from->anneal_steps;
    annealing->weight = isnan(from->weight_end) ? from->args.weight : from->weight_end;
    annealing->temperature =
        isnan(from->temperature_end) ? plan->losses[l].args.temperature : from->temperature_end;
    name_loss(plan, l);
    plan->n_losses = l + 1;
    plan->on_label |= loss->on == LB_ON_LABEL;
    plan->on_target |= loss->on == LB_ON_TARGET;
    plan->on_chunk |= loss->on == LB_ON_CHUNK;
    plan->on_aligned |= loss->on == LB_ON_ALIGNED;
    if (loss->on == LB_ON_TARGET && lb_plan_trimmed(plan) &&
        (plan->losses[l].args.temperature != plan->recipe->temperature ||
         (from->anneal != LB_ANNEAL_NONE && !isnan(from->temperature_end)))) {
        return lb_fail(
            detail, LB_E_ARG,
            "loss_functions.%u.temperature: what a teacher gives to tokens that a trimmed vocabulary "
            "lacks is asked at the recipe's temperature %g; set that one",
            l, plan->recipe->temperature);
    }
    if (lb_loss_unlike(loss) && (!lb_model_is_causal(student) || classifies_texts(student))) {
        return lb_fail(detail, LB_E_ARG,
                       "loss_functions.%u: %s compares how likely texts are, which a %s does not say", l,
                       loss->name, lb_model_config(student)->model_type);
    }
    if (loss->on == LB_ON_LABEL || loss->on == LB_ON_TARGET || lb_loss_unlike(loss)) {
        if (classifies_texts(student)) {
            return check_problem(lb_model_labels(student), "the student", detail);
        }
        return lb_model_head(student)->weight != NULL
                   ? LB_OK
                   : lb_fail(detail, LB_E_ARG,
                             "loss_functions.%u: %s reads logits, which a %s without a head does not make", l,
                             loss->name, lb_model_config(student)->model_type);
    }
    return lb_plan_pairs(plan, student, l, detail);
}

/* Which teachers each loss of the recipe learns from. */
static void make_sets(struct lb_plan *plan) {
    const struct lb_recipe *r = plan->recipe;
    for (unsigned l = 0; l < r->loss_functions_count; l++) {
        uint32_t set = 0, all = (uint32_t)((UINT64_C(1) << plan->n_teachers) - 1);
        for (unsigned k = 0; k < plan->n_teachers; k++) {
            for (unsigned i = 0; i < r->loss_functions[l].teachers_count; i++) {
                bool named = strcmp(r->loss_functions[l].teachers[i], r->teachers[k].name) == 0;
                set |= named ? UINT32_C(1) << k : 0;
            }
        }
        set = set == all ? 0 : set;
        unsigned i = 0;
        while (i <= plan->n_sets && plan->sets[i] != set) {
            i++;
        }
        plan->sets[i] = set;
        plan->n_sets = i > plan->n_sets ? i : plan->n_sets;
        plan->losses[l].set = i;
    }
}

bool lb_plan_learns(const struct lb_plan *plan, size_t l, unsigned k) {
    return lb_plan_in_set(plan, plan->losses[l].set, k);
}

size_t lb_plan_first_loss(const struct lb_plan *plan, unsigned k) {
    size_t l = 0;
    while (l < plan->n_losses && (plan->losses[l].loss->on == LB_ON_LABEL || !lb_plan_learns(plan, l, k))) {
        l++;
    }
    return l;
}

/* Whether a loss of that kind learns from teacher k. */
static bool any_learns(const struct lb_plan *plan, unsigned k, enum lb_loss_on on) {
    for (unsigned l = 0; l < plan->recipe->loss_functions_count; l++) {
        const struct lb_loss *loss = lb_loss_find(plan->recipe->loss_functions[l].function);
        if (loss->on == on && lb_plan_learns(plan, l, k)) {
            return true;
        }
    }
    return false;
}

/* The first loss that learns from teacher k and compares tokens with tokens; loss_functions_count: none. */
static unsigned first_on_ids(const struct lb_plan *plan, unsigned k) {
    unsigned l = 0;
    for (; l < plan->recipe->loss_functions_count; l++) {
        const struct lb_loss *loss = lb_loss_find(plan->recipe->loss_functions[l].function);
        if (loss->on != LB_ON_LABEL && !lb_loss_unlike(loss) && lb_plan_learns(plan, l, k)) {
            break;
        }
    }
    return l;
}

/* Whether the teacher reads the student's ids, or through the map's, or has losses only for which it need
 * not.
 */
static enum lb_status check_tokenizer(struct lb_plan *plan, const char *tokenizer,
                                      const struct lb_vocab_map *map, unsigned k, struct lb_detail *detail) {
    const struct lb_teacher_info *info = plan->info[k];
    const char *name = plan->recipe->teachers[k].name, *its = info->tokenizer_fingerprint;
    if (map != NULL && its[0] == 0 && info->stated[0] != 0) {
        return lb_fail(
            detail, LB_E_ARG,
            "teacher %s: its server does not serve its tokenizer, of which this recipe's is a part: name "
            "the model's folder, tokenizer.json or .gguf file with the teacher's tokenizer",
            name);
    }
    if (its[0] == 0 || tokenizer[0] == 0 || strcmp(its, tokenizer) == 0) {
        return LB_OK;
    }
    unsigned first = first_on_ids(plan, k);
    if (first == plan->recipe->loss_functions_count) {
        plan->unlike[k] = true;
        return LB_OK;
    }
    const char *loss = plan->recipe->loss_functions[first].function;
    if (map != NULL && strcmp(its, map->full) == 0) {
        plan->map[k] = map;
        return LB_OK;
    }
    if (map != NULL) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "teacher %s has another tokenizer (%.12s) than the one that this recipe's was trimmed from "
            "(%.12s), and loss_functions.%u (%s) compares token by token: trim that of GET "
            "/v2/models/%s/tokenizer, or let only alm learn from it (loss_functions: {function: alm, "
            "teachers: [%s]}, and teachers without it for the others)",
            name, its, map->full, first, loss, info->model, name);
    }
    return lb_fail(
        detail, LB_E_MISMATCH,
        "teacher %s has another tokenizer (%.12s) than this recipe (%.12s), and loss_functions.%u (%s) "
        "compares token by token: use the tokenizer that GET /v2/models/%s/tokenizer gives, or a smaller one "
        "made of it by limbeck tokenizer trim, or let only alm learn from it (loss_functions: {function: "
        "alm, "
        "teachers: [%s]}, and teachers without it for the others)",
        name, its, tokenizer, first, loss, info->model, name);
}

static enum lb_status check_teacher(const struct lb_plan *plan, const struct lb_model *student, unsigned k,
                                    struct lb_detail *detail) {
    const struct lb_teacher_info *info = plan->info[k];
    const char *name = plan->recipe->teachers[k].name;
    if (info->input_size != lb_model_config(student)->input_size) {
        return lb_fail(detail, LB_E_MISMATCH, "teacher %s reads %lld features, the student %lld (0: text)",
                       name, (long long)info->input_size, (long long)lb_model_config(student)->input_size);
    }
    if (info->tokenizer_fingerprint[0] == 0 && any_learns(plan, k, LB_ON_CHUNK) &&
        info->vocab_size != lb_model_config(student)->vocab_size) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "teacher %s has a vocabulary of %lld, the student of %lld, and no tokenizer is served with it: "
            "alm needs to know its tokens; serve it with its tokenizer.json",
            name, (long long)info->vocab_size, (long long)lb_model_config(student)->vocab_size);
    }
    if (plan->prompted[k] && plan->unlike[k]) {
        return lb_fail(
            detail, LB_E_UNSUPPORTED,
            "teachers.%u.teacher_prompt: teacher %s reads texts in tokens of its own, where no prompt "
            "can be put before the student's; use one with the student's tokenizer",
            k, name);
    }
    if (plan->prompted[k] && any_learns(plan, k, LB_ON_ATTENTION)) {
        return lb_fail(
            detail, LB_E_UNSUPPORTED,
            "teachers.%u.teacher_prompt: an attention loss compares each position with all before "
            "it, and those are not the same behind another prompt; let it learn from others (teachers)",
            k);
    }
    if (info->input_size == 0 && (info->max_length > 0 || *info->stated == '\0') &&
        info->max_length < plan->recipe->max_length && !plan->unlike[k]) {
        return lb_fail(detail, LB_E_LIMIT, "teacher %s reads at most %lld tokens, max_length is %lld", name,
                       (long long)info->max_length, (long long)plan->recipe->max_length);
    }
    return LB_OK;
}

/* Pairs of final states that are weighed by what the teachers' heads make of the student's. */
static enum lb_status mark_by_head(struct lb_plan *plan, struct lb_detail *detail) {
    bool any = false, wanted = plan->recipe->mixture_states == LB_STATES_STUDENT && plan->n_teachers > 0;
    for (size_t i = 0; wanted && i < plan->n_pairs; i++) {
        struct lb_pair *p = &plan->pairs[i];
        const struct lb_loss *loss = plan->losses[p->loss].loss;
        p->by_head =
            loss->on == LB_ON_HIDDEN && !loss->any_width && p->final && p->kind == LB_OUT_HIDDEN_FINAL;
        any = any || p->by_head;
    }
    return any || !wanted
               ? LB_OK
               : lb_fail(detail, LB_E_ARG,
                         "mixture_states: student weighs losses between final states (hs_mse, "
                         "hs_cosine without layer_mapping), and there is none; add one, or drop it");
}

/* The head of teacher k where such pairs need it. */
static enum lb_status find_head(struct lb_plan *plan, const struct lb_model *student,
                                struct lb_teachers *teachers, unsigned k, struct lb_detail *detail) {
    bool needed = false;
    for (size_t i = 0; i < plan->n_pairs; i++) {
        needed = needed || (plan->pairs[i].by_head && plan->pairs[i].teacher == k);
    }
    if (!needed || plan->head[k] != NULL) {
        return LB_OK;
    }
    enum lb_status status = lb_teachers_head(teachers, k, &plan->head[k], detail);
    return status != LB_OK || plan->head[k]->vocab_size == logits_of(student)
               ? status
               : lb_fail(
                     detail, LB_E_MISMATCH,
                     "mixture_states: the head of teacher %s tells %lld classes apart, the student's labels "
                     "are of %lld",
                     plan->recipe->teachers[k].name, (long long)plan->head[k]->vocab_size,
                     (long long)logits_of(student));
}

enum lb_status lb_plan_make(const struct lb_recipe *recipe, struct lb_model *student,
                            const char *tokenizer_fingerprint, const struct lb_vocab_map *map,
                            struct lb_teachers *teachers, struct lb_plan *out, struct lb_detail *detail) {
    memset(out, 0, sizeof *out);
    out->recipe = recipe;
    out->n_teachers = teachers != NULL ? lb_teachers_count(teachers) : 0;
    out->mixture = lb_mixture_find(recipe->mixture);
    out->n_logits = logits_of(student);
    enum lb_status status = LB_OK;
    make_sets(out);
    for (unsigned k = 0; k < out->n_teachers && status == LB_OK; k++) {
        out->info[k] = lb_teachers_info(teachers, k);
        if (!lb_model_is_classifier(student)) {
            bool ours =
                map == NULL && strcmp(out->info[k]->tokenizer_fingerprint, tokenizer_fingerprint) == 0;
            int64_t named = ours ? 0 : lb_teachers_named_tokens(teachers, k);
            lb_teachers_assume_vocab(teachers, k, named > 0 ? named : logits_of(student));
        }
        out->spec[k].top_k = recipe->loss_top_k;
        out->prompted[k] = recipe->teachers[k].teacher_prompt != NULL;
        bool weighed = (lb_plan_needs(out) & LB_NEEDS_DISTRIBUTIONS) != 0;
        out->apart[k] = !any_learns(out, k, LB_ON_TARGET) && !weighed;
        status = check_tokenizer(out, tokenizer_fingerprint, map, k, detail);
        status = status == LB_OK ? check_teacher(out, student, k, detail) : status;
        bool softened = !lb_lane_whole(recipe->targets) || out->map[k] != NULL;
        out->spec[k].temperature = softened && !out->apart[k] ? recipe->temperature : 1;
        if (status == LB_OK && out->map[k] != NULL) {
            status = lb_teachers_set_map(teachers, k, map, detail);
        }
        if (out->info[k]->num_labels > 0) {
            out->map[k] = NULL; /* of the ids in the question, not of the classes in the answer */
        }
    }
    for (unsigned l = 0; l < recipe->loss_functions_count && status == LB_OK; l++) {
        status = add_loss(out, student, l, detail);
    }
    status = status == LB_OK ? mark_by_head(out, detail) : status;
    for (unsigned k = 0; k < out->n_teachers && status == LB_OK; k++) {
        status = check_weighed(out, student, k, detail);
        status = status == LB_OK && !out->apart[k] ? ask_lane(out, student, teachers, k, detail) : status;
        status = status == LB_OK ? ask_weights(out, student, k, detail) : status;
        status = status == LB_OK ? find_head(out, student, teachers, k, detail) : status;
        status = status == LB_OK && any_learns(out, k, LB_ON_CHUNK) ? ask_labels(out, k, detail) : status;
        status = status == LB_OK && any_learns(out, k, LB_ON_ALIGNED) ? ask_aligned(out, k, detail) : status;

        if (status == LB_OK && out->spec[k].n_outputs == 0) { /* nothing is learnt from it: it only writes */
            status = ask_labels(out, k, detail);
        }
        if (status == LB_OK) {
            status = lb_teachers_set_spec(teachers, k, &out->spec[k], detail);
        }
    }
    return status;
}

bool lb_plan_trimmed(const struct lb_plan *plan) {
    bool any = false;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        any = any || plan->map[k] != NULL;
    }
    return any;
}

/* Of teachers that are drawn, those of any set that losses learn from. */
static void keep_drawn(const struct lb_plan *plan, const struct lb_sample *sample, bool *wanted) {
    double given[LB_MAX_TEACHERS], w[LB_MAX_TEACHERS];
    bool members[LB_MAX_TEACHERS], drawn[LB_MAX_TEACHERS] = {false};
    const struct lb_weighing in = {
        .n = plan->n_teachers, .present = members, .given = given, .draw = lb_plan_draw(plan, sample)};
    lb_plan_given(plan, sample, given);
    for (size_t l = 0; l < plan->n_losses; l++) {
        if (!lb_plan_on(plan, l, sample->source)) {
            continue;
        }
        for (unsigned k = 0; k < plan->n_teachers; k++) {
            members[k] = lb_plan_learns(plan, l, k);
        }
        lb_mixture_weights(plan->mixture, &in, w);
        for (unsigned k = 0; k < plan->n_teachers && plan->losses[l].loss->on != LB_ON_LABEL; k++) {
            drawn[k] = drawn[k] || w[k] > 0;
        }
    }
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        wanted[k] = wanted[k] && drawn[k];
    }
}

/* Whether any loss learns from teacher k on texts of that source. */
static bool learns_on(const struct lb_plan *plan, unsigned k, enum lb_source source) {
    bool any = false;
    for (size_t l = 0; l < plan->n_losses; l++) {
        any |= plan->losses[l].loss->on != LB_ON_LABEL && lb_plan_learns(plan, l, k) &&
               lb_plan_on(plan, l, source);
    }
    return any;
}

void lb_plan_wanted(const struct lb_plan *plan, const struct lb_dataset *data,
                    const struct lb_sample *samples, int64_t n, bool *wanted) {
    for (int64_t i = 0; i < n; i++) {
        const char *tag = samples[i].tag >= 0 ? lb_dataset_tag(data, samples[i].tag) : NULL;
        for (unsigned k = 0; k < plan->n_teachers; k++) {
            const struct lb_reading *its = lb_sample_reading(&samples[i], k);
            bool of_use =
                (its == NULL || its->aligned || its->n_chunks > 0) && learns_on(plan, k, samples[i].source);
            wanted[i * plan->n_teachers + k] =
                of_use && (!plan->mixture->by_tag || lb_recipe_has_tag(&plan->recipe->teachers[k], tag));
        }
        if ((lb_plan_needs(plan) & LB_NEEDS_DRAW) != 0) {
            keep_drawn(plan, &samples[i], wanted + i * plan->n_teachers);
        }
    }
}
