/* The second of two checks: whether the values make sense together. Each complaint is one line with the key
 * and the remedy. */
#include "proto/limits.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"
#include "trainer/recipe/fields.h"
#include "trainer/recipe/names.h"
#include "trainer/wire/url.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct check {
    const struct lb_recipe *recipe;
    struct lb_mistakes *mistakes;
};

/* Adds a mistake; LB_E_ARG. */
#define complain(c, path, ...) lb_mistakes_add((c)->mistakes, LB_E_ARG, path, __VA_ARGS__)

static bool sound(const struct check *c, const char *paths) {
    return lb_mistakes_sound(c->mistakes, paths);
}

static bool sound_entry(const struct check *c, const char *list, unsigned i) {
    char path[64];
    snprintf(path, sizeof path, "%s.%u", list, i);
    return !lb_mistakes_touch(c->mistakes, path);
}

static bool is_classifier(const struct lb_recipe *r) {
    return lb_data_features(r->datasets[0].type);
}

static enum lb_status check_student(const struct check *c) {
    const struct lb_recipe_student *s = &c->recipe->student;
    if (s->model != NULL || !sound(c, "student datasets.0")) {
        return LB_OK;
    }
    bool mlp = s->config.input_size > 0;
    if (mlp != is_classifier(c->recipe)) {
        return mlp ? complain(c, "student",
                              "a limbeck_mlp learns from type: idx data (images with labels), the datasets "
                              "are text")
                   : complain(c, "datasets",
                              "type: idx data (images with labels) needs student.model_type limbeck_mlp");
    }
    if (!mlp && sound(c, "max_length") && c->recipe->max_length > s->config.max_position_embeddings) {
        return complain(
            c, "max_length",
            "%lld is longer than student.max_position_embeddings %lld; raise one or lower the other",
            (long long)c->recipe->max_length, (long long)s->config.max_position_embeddings);
    }
    return LB_OK;
}

static enum lb_status check_url(const struct check *c, const char *path, const char *url, bool local_too) {
    struct lb_detail why = {0};
    return lb_url_check(url, local_too, &why) == LB_OK ? LB_OK : complain(c, path, "%s", why.text);
}

/* Tensors of a server that is no limbeckd: which ones there may be, and which there must be. */
static enum lb_status check_names(const struct check *c, unsigned k) {
    static const char *const known[] = {"input_ids", "lengths", "attention_mask", "logits"};
    const struct lb_recipe_teacher *t = &c->recipe->teachers[k];
    bool ids = false, logits = false;
    char path[160];
    for (unsigned i = 0; i < t->names_count; i++) {
        const char *key = t->names[i].key, *nearest;
        bool found = false;
        for (size_t j = 0; j < sizeof known / sizeof *known; j++) {
            found = found || strcmp(known[j], key) == 0;
        }
        ids = ids || strcmp(key, "input_ids") == 0;
        logits = logits || strcmp(key, "logits") == 0;
        if (!found) {
            nearest = lb_nearest_name(key, known, sizeof known / sizeof *known);
            snprintf(path, sizeof path, "teachers.%u.names.%.80s", k, key);
            return complain(c, path, "is none of input_ids, lengths, attention_mask, logits%s%s",
                            nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "");
        }
    }
    snprintf(path, sizeof path, "teachers.%u.%s", k, t->names_count > 0 ? "names" : "extra_inputs");
    if ((t->names_count > 0 || t->extra_inputs_count > 0) && t->protocol != LB_PROTOCOL_OIP) {
        return complain(c, path, "is of protocol: oip, whose servers have tensors; leave it out");
    }
    if (t->extra_inputs_count > 0 && t->names_count == 0) {
        return complain(c, path, "goes with names, of a server that is no limbeckd");
    }
    if (t->names_count > 0 && !(ids && logits)) {
        return complain(c, path, "needs input_ids and logits: which tensors the server has for them");
    }
    return LB_OK;
}

static enum lb_status check_teacher(const struct check *c, unsigned k) {
    const struct lb_recipe_teacher *t = &c->recipe->teachers[k];
    char path[64];
    enum lb_status status = LB_OK;
    for (unsigned j = 0; j < k && status == LB_OK; j++) {
        if (sound_entry(c, "teachers", j) && strcmp(c->recipe->teachers[j].name, t->name) == 0) {
            snprintf(path, sizeof path, "teachers.%u.name", k);
            status = complain(c, path, "\"%s\" is the name of teachers.%u too; metrics need different names",
                              t->name, j);
        }
    }
    enum lb_status names = check_names(c, k);
    status = lb_read_both(status, names);
    bool tells = t->protocol == LB_PROTOCOL_OIP && t->names_count == 0;
    if (names == LB_OK && ((tells && t->tokenizer != NULL) ||
                           (t->protocol == LB_PROTOCOL_OIP && (t->head != NULL || t->max_logprobs > 0)))) {
        snprintf(path, sizeof path, "teachers.%u.%s", k,
                 t->head != NULL                 ? "head"
                 : tells && t->tokenizer != NULL ? "tokenizer"
                                                 : "max_logprobs");
        status = lb_read_both(
            status,
            complain(c, path, "is of servers that do not tell; one of protocol: oip does, leave it out"));
    }
    snprintf(path, sizeof path, "teachers.%u.url", k);
    status = lb_read_both(status, check_url(c, path, t->url, t->names_count == 0));
    for (unsigned i = 0; i < t->replicas_count; i++) {
        snprintf(path, sizeof path, "teachers.%u.replicas.%u", k, i);
        status = lb_read_both(status, check_url(c, path, t->replicas[i], false));
    }
    return status;
}

/* Routing sends a sequence to the teachers whose tags hold its dataset's tag: each dataset must find one. */
static enum lb_status check_route(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    char path[64];
    enum lb_status status = LB_OK;
    bool tagged = true;
    for (unsigned k = 0; k < r->teachers_count; k++) {
        if (r->teachers[k].tags_count == 0) {
            snprintf(path, sizeof path, "teachers.%u", k);
            status =
                complain(c, path, "mixture: route needs tags: which datasets this teacher is asked about");
            tagged = false; /* who has the datasets' is not known yet */
        }
    }
    for (unsigned i = 0; i < r->datasets_count; i++) {
        const char *tag = r->datasets[i].tag;
        bool found = false;
        for (unsigned k = 0; tag != NULL && k < r->teachers_count; k++) {
            for (unsigned j = 0; j < r->teachers[k].tags_count; j++) {
                found = found || strcmp(r->teachers[k].tags[j], tag) == 0;
            }
        }
        snprintf(path, sizeof path, "datasets.%u", i);
        if (tag == NULL) {
            status = complain(c, path, "mixture: route needs a tag on each dataset");
        } else if (!found && tagged) {
            status = complain(c, path,
                              "no teacher has the tag \"%s\"; mixture: route would have nobody to ask", tag);
        }
    }
    return status;
}

/* The keys that a mixture reads, and whether the lane tells what it weighs by. */
static enum lb_status check_mixture_keys(const struct check *c, const struct lb_mixture *mixture) {
    const struct lb_recipe *r = c->recipe;
    if (r->mixture_by != LB_BY_DEFAULT && !mixture->by_choice) {
        return complain(c, "mixture_by", "%s does not read it; dynamic and select do", mixture->name);
    }
    if (r->mixture_temperature != 0 && !mixture->softened) {
        return complain(c, "mixture_temperature", "%s does not read it; dynamic does", mixture->name);
    }
    if (r->mixture_states != LB_STATES_DEFAULT && !mixture->of_states) {
        return complain(c, "mixture_states", "%s does not read it; ca_mkd does", mixture->name);
    }
    if (r->mixture_per != LB_PER_DEFAULT && (mixture->per & LB_PER(r->mixture_per)) == 0) {
        return complain(c, "mixture_per", "%s has %s", mixture->name,
                        mixture->per == 0 ? "the same weights everywhere; leave it out"
                        : (mixture->per & LB_PER(LB_PER_BATCH)) != 0 ? "weights per sequence or batch"
                                                                     : "weights per sequence or token");
    }
    if ((lb_mixture_needs(mixture, r->mixture_by) & LB_NEEDS_DISTRIBUTIONS) == 0 ||
        lb_lane_whole(r->targets)) {
        return LB_OK;
    }
    const char *what = r->mixture_by == LB_BY_MAX_PROB ? "largest probability" : "entropy";
    if (r->targets == LB_LANE_SAMPLES) {
        return complain(
            c, "mixture",
            "%s weighs by the %s of each teacher, which draws (targets: samples) do not tell; use "
            "targets: final_hidden, logits or topk, or weigh by the labels (ca_mkd, mixture_by: ce)",
            mixture->name, what);
    }
    return r->temperature == 1
               ? LB_OK
               : complain(
                     c, "mixture",
                     "%s weighs by the %s of each teacher at temperature 1, and targets: topk is asked at "
                     "temperature %g only; use targets: final_hidden or logits, or temperature: 1",
                     mixture->name, what, r->temperature);
}

static enum lb_status check_mixture(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    if (!sound(c, "mixture teachers")) {
        return LB_OK;
    }
    const struct lb_mixture *mixture = lb_mixture_find(r->mixture);
    if (mixture->by_tag && r->teachers_count == 0) {
        return complain(c, "mixture", "%s without teachers; list them under teachers", mixture->name);
    }
    if (sound(c, "targets datasets.0") && mixture->combine == LB_COMBINE_LOGITS &&
        !lb_lane_whole(r->targets)) {
        return complain(c, "mixture",
                        "%s needs whole logits, and targets: %s; use mean_probs, or "
                        "targets: final_hidden or logits",
                        mixture->name,
                        r->targets == LB_LANE_TOPK ? "topk has the largest only" : "samples has draws only");
    }
    enum lb_status status =
        sound(c, "mixture_by mixture_temperature mixture_states mixture_per targets temperature datasets.0")
            ? check_mixture_keys(c, mixture)
            : LB_OK;
    return status == LB_OK && mixture->by_tag && sound(c, "datasets") ? check_route(c) : status;
}

static enum lb_status check_teacher_anneal(const struct check *c, unsigned k) {
    const struct lb_recipe_teacher *t = &c->recipe->teachers[k];
    bool anneals = t->anneal != LB_ANNEAL_NONE, ends = !isnan(t->weight_end);
    char path[64];
    snprintf(path, sizeof path, "teachers.%u", k);
    if (!anneals && (ends || t->anneal_steps != 0)) {
        return complain(c, path, "weight_end and anneal_steps need anneal: linear or cosine");
    }
    return anneals && !ends ? complain(c, path, "anneal needs weight_end: where to") : LB_OK;
}

static enum lb_status check_teachers(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    enum lb_status status = LB_OK;
    double sum = 0, end = 0;
    if (r->teachers_count > LB_MAX_TEACHERS) {
        return complain(c, "teachers", "%u teachers; at most %d", r->teachers_count, LB_MAX_TEACHERS);
    }
    for (unsigned k = 0; k < r->teachers_count; k++) {
        if (sound_entry(c, "teachers", k)) {
            status = lb_read_both(status, check_teacher(c, k));
            status = lb_read_both(status, check_teacher_anneal(c, k));
        }
        const struct lb_recipe_teacher *t = &r->teachers[k];
        sum += t->weight;
        end += t->anneal != LB_ANNEAL_NONE ? t->weight_end : t->weight;
    }
    if (sound(c, "teachers") && r->teachers_count > 0 && (!(sum > 0) || !(end > 0))) {
        status = lb_read_both(status,
                              complain(c, "teachers", "every weight is 0%s; at least one teacher must count",
                                       sum > 0 ? " at the end" : ""));
    }
    return lb_read_both(status, check_mixture(c));
}

static enum lb_status check_layers(const struct check *c, const struct lb_recipe_loss *loss,
                                   const struct lb_loss *entry, unsigned i) {
    bool attention = lb_loss_by_block(entry);
    char path[64];
    snprintf(path, sizeof path, "loss_functions.%u.layer_mapping", i);
    if (entry->on == LB_ON_ATTENTION && loss->layer_mapping_count == 0 &&
        loss->layer_rule == LB_LAYERS_LISTED) {
        snprintf(path, sizeof path, "loss_functions.%u", i);
        return complain(c, path,
                        "%s needs layer_mapping: [{student: N, teacher: M}, ...], or uniform, last or skip",
                        loss->function);
    }
    const struct lb_config *config = &c->recipe->student.config; /* all zero where student.model decides */
    int64_t layers = config->input_size > 0 ? config->n_hidden : config->num_hidden_layers;
    int64_t last = attention ? layers - 1 : layers;
    bool known = sound(c, "student");
    for (unsigned j = 0; j < loss->layer_mapping_count; j++) {
        const struct lb_layer_pair *pair = &loss->layer_mapping[j];
        if (attention && (pair->student < 0 || pair->teacher < 0)) {
            return complain(c, path, "-1 means the final hidden state; attention layers are numbered from 0");
        }
        if (known && layers > 0 && pair->student > last) {
            return complain(c, path, "the student has no layer %lld there; its last is %lld",
                            (long long)pair->student, (long long)last);
        }
    }
    return LB_OK;
}

/* A key that the loss does not read is no key of its entry. */
static enum lb_status check_loss_keys(const struct check *c, const struct lb_loss *loss, unsigned i) {
    const char *entry = (const char *)&c->recipe->loss_functions[i];
    enum lb_status status = LB_OK;
    for (const struct lb_field *f = lb_recipe_loss_fields; f->key != NULL; f++) {
        bool every = strcmp(f->key, "function") == 0 || strcmp(f->key, "weight") == 0 ||
                     strcmp(f->key, "weight_end") == 0 || strncmp(f->key, "anneal", 6) == 0 ||
                     (strcmp(f->key, "temperature_end") == 0 && lb_loss_reads(loss, "temperature")) ||
                     (loss->on != LB_ON_LABEL && strcmp(f->key, "teachers") == 0) ||
                     strcmp(f->key, "on") == 0; /* check_written.c */
        if (!every && !lb_field_at_default(f, entry) && !lb_loss_reads(loss, f->key)) {
            char path[64];
            snprintf(path, sizeof path, "loss_functions.%u.%s", i, f->key);
            status = complain(c, path, "%s does not read it; its keys are weight%s%s%s", loss->name,
                              loss->on != LB_ON_LABEL ? ", teachers" : "",
                              loss->parameters[0] != '\0' ? ", " : "", loss->parameters);
        }
    }
    return status;
}

/* The targets that are asked for, as the recipe has them. */
static const char *lane_names(enum lb_target_lane lane) {
    return lb_lane_whole(lane) ? "final_hidden or logits" : lane == LB_LANE_TOPK ? "topk" : "samples";
}

static enum lb_target_kind kind_of(enum lb_target_lane lane) {
    return lb_lane_whole(lane)    ? LB_TARGET_DENSE
           : lane == LB_LANE_TOPK ? LB_TARGET_TRUNCATED
                                  : LB_TARGET_SAMPLED;
}

/* The names of the losses that learn from such targets. */
static void losses_of(enum lb_target_kind kind, char *out, size_t room) {
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        if ((lb_loss_at(i)->kinds & kind) != 0 && n < room) {
            n += (size_t)snprintf(out + n, room - n, "%s%s", n > 0 ? ", " : "", lb_loss_at(i)->name);
        }
    }
}

static enum lb_status check_parameters(const struct check *c, const struct lb_loss *loss, unsigned i) {
    const struct lb_recipe *r = c->recipe;
    struct lb_loss_args args = r->loss_functions[i].args;
    bool with_tail = r->targets == LB_LANE_TOPK && r->loss_add_tail;
    lb_loss_fill(loss, &args);
    const char *wrong = loss->wrong != NULL ? loss->wrong(&args, with_tail) : NULL;
    char path[64];
    snprintf(path, sizeof path, "loss_functions.%u", i);
    return wrong != NULL ? complain(c, path, "%s: %s", loss->name, wrong) : LB_OK;
}

/* Whether it has a weight at the start or the end. */
static bool counts(const struct lb_recipe_loss *loss) {
    return loss->args.weight > 0 || (loss->anneal != LB_ANNEAL_NONE && loss->weight_end > 0);
}

static enum lb_status check_anneal(const struct check *c, unsigned i) {
    const struct lb_recipe *r = c->recipe;
    const struct lb_recipe_loss *loss = &r->loss_functions[i];
    bool ends = !isnan(loss->weight_end) || !isnan(loss->temperature_end);
    char path[64];
    snprintf(path, sizeof path, "loss_functions.%u", i);
    if (loss->anneal == LB_ANNEAL_NONE && (ends || loss->anneal_steps != 0)) {
        return complain(c, path,
                        "weight_end, temperature_end and anneal_steps need anneal: linear or cosine");
    }
    if (loss->anneal != LB_ANNEAL_NONE && !ends) {
        return complain(c, path, "anneal needs weight_end or temperature_end: where to");
    }
    if (loss->anneal != LB_ANNEAL_NONE && !isnan(loss->temperature_end) && !lb_lane_whole(r->targets)) {
        return complain(c, path,
                        "temperature_end needs whole distributions; targets: %s is asked at one temperature",
                        lane_names(r->targets));
    }
    return LB_OK;
}

static unsigned teachers_of(const struct lb_recipe *r, const struct lb_recipe_loss *loss) {
    return loss->teachers_count > 0 ? loss->teachers_count : r->teachers_count;
}

/* What teachers send must be what the loss can compare with. */
static enum lb_status check_target(const struct check *c, const struct lb_loss *loss, unsigned i) {
    const struct lb_recipe *r = c->recipe;
    double temperature = r->loss_functions[i].args.temperature;
    enum lb_target_kind kind = kind_of(r->targets);
    char path[64];
    if ((loss->kinds & kind) == 0) {
        char others[256];
        losses_of(kind, others, sizeof others);
        snprintf(path, sizeof path, "loss_functions.%u", i);
        return complain(c, path, "%s cannot learn from targets: %s; use %s%s, or take one that can: %s",
                        loss->name, lane_names(r->targets),
                        lane_names((loss->kinds & LB_TARGET_DENSE) != 0 ? LB_LANE_LOGITS : LB_LANE_TOPK),
                        kind == LB_TARGET_SAMPLED && loss->kinds == (LB_TARGET_DENSE | LB_TARGET_TRUNCATED)
                            ? " or topk"
                            : "",
                        others);
    }
    if (loss->on_logits && lb_mixture_find(r->mixture)->combine == LB_COMBINE_PROBS &&
        teachers_of(r, &r->loss_functions[i]) > 1) {
        snprintf(path, sizeof path, "loss_functions.%u", i);
        return complain(
            c, path,
            "%s compares logits, which a mean of several teachers' probabilities (mixture: %s) has none of; "
            "use mean_logits or mean_losses, or let it learn from one (teachers: [NAME])",
            loss->name, r->mixture);
    }
    if (kind != LB_TARGET_DENSE && temperature != 0 && temperature != r->temperature) {
        snprintf(path, sizeof path, "loss_functions.%u.temperature", i);
        return complain(c, path, "%s at the recipe's temperature %g; set that one",
                        r->targets == LB_LANE_TOPK ? "top-k targets are normalised" : "samples count",
                        r->temperature);
    }
    return LB_OK;
}

static bool is_listed(const struct lb_recipe_loss *loss, const char *name) {
    for (unsigned j = 0; j < loss->teachers_count; j++) {
        if (strcmp(loss->teachers[j], name) == 0) {
            return true;
        }
    }
    return loss->teachers_count == 0;
}

/* The teachers that a loss names must be there, each once. */
static enum lb_status check_loss_teachers(const struct check *c, const struct lb_recipe_loss *loss,
                                          unsigned i) {
    for (unsigned j = 0; j < loss->teachers_count; j++) {
        unsigned there = 0, before = 0;
        char path[64];
        for (unsigned k = 0; k < c->recipe->teachers_count; k++) {
            there += strcmp(c->recipe->teachers[k].name, loss->teachers[j]) == 0;
        }
        for (unsigned k = 0; k < j; k++) {
            before += strcmp(loss->teachers[k], loss->teachers[j]) == 0;
        }
        snprintf(path, sizeof path, "loss_functions.%u.teachers.%u", i, j);
        if (there == 0 || before > 0) {
            return complain(c, path, there == 0 ? "no teacher is called \"%s\"" : "\"%s\" stands there twice",
                            loss->teachers[j]);
        }
    }
    return LB_OK;
}

/* Each teacher must be of use to some loss. */
static enum lb_status check_use(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    for (unsigned k = 0; k < r->teachers_count; k++) {
        bool used = false;
        for (unsigned i = 0; i < r->loss_functions_count; i++) {
            const struct lb_recipe_loss *loss = &r->loss_functions[i];
            used |= lb_loss_find(loss->function)->on != LB_ON_LABEL && counts(loss) &&
                    is_listed(loss, r->teachers[k].name);
        }
        if (!used && !r->seq_kd) { /* or else it may write */
            char path[64];
            snprintf(path, sizeof path, "teachers.%u", k);
            return complain(c, path, "no loss learns from %s; name it in one's teachers, or drop it",
                            r->teachers[k].name);
        }
    }
    return LB_OK;
}

/* Whether a loss before the i-th learns from teachers too. */
static bool asked_before(const struct lb_recipe *r, unsigned i) {
    for (unsigned j = 0; j < i; j++) {
        const char *name = r->loss_functions[j].function;
        const struct lb_loss *loss = name != NULL ? lb_loss_find(name) : NULL;
        if (loss != NULL && loss->on != LB_ON_LABEL) {
            return true;
        }
    }
    return false;
}

static enum lb_status check_loss(const struct check *c, unsigned i) {
    const struct lb_recipe_loss *loss = &c->recipe->loss_functions[i];
    const struct lb_loss *entry = lb_loss_find(loss->function);
    double temperature = loss->args.temperature;
    char path[64];
    enum lb_status status = check_loss_keys(c, entry, i);
    if (temperature != 0 && temperature < LB_MIN_TEMPERATURE) {
        snprintf(path, sizeof path, "loss_functions.%u.temperature", i);
        return complain(c, path, "%g is out of range; allowed is %g to %g, or 0 for the recipe's",
                        temperature, LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE);
    }
    if (status != LB_OK) {
        return status; /* the rest reads what is wrong */
    }
    status = sound(c, "targets loss_add_tail") ? check_parameters(c, entry, i) : LB_OK;
    if (!sound(c, "teachers datasets.0 targets mixture temperature")) {
        return status;
    }
    if (entry->on != LB_ON_LABEL && c->recipe->teachers_count == 0) {
        snprintf(path, sizeof path, "loss_functions.%u", i);
        if (asked_before(c->recipe, i)) {
            return LB_E_ARG; /* told already */
        }
        return complain(c, path, "%s learns from teachers, and the recipe lists none", loss->function);
    }
    if (lb_loss_unlike(entry) && (is_classifier(c->recipe) || c->recipe->whole_texts)) {
        snprintf(path, sizeof path, "loss_functions.%u", i);
        return complain(c, path, "%s compares how likely texts are, token by token; %s", loss->function,
                        is_classifier(c->recipe)
                            ? "the data are images"
                            : "whole_texts is for encoders and classifiers, which predict no tokens");
    }
    status = lb_read_both(status, check_loss_teachers(c, loss, i));
    status = lb_read_both(status, check_anneal(c, i));
    if (entry->on == LB_ON_TARGET) {
        return lb_read_both(status, check_target(c, entry, i));
    }
    bool layers = entry->on != LB_ON_LABEL && !lb_loss_unlike(entry);
    return layers ? lb_read_both(status, check_layers(c, loss, entry, i)) : status;
}

static enum lb_status check_losses(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    bool asks = false, any = false;
    if (r->loss_functions_count > LB_MAX_LOSSES) {
        return complain(c, "loss_functions", "%u losses; at most %d", r->loss_functions_count, LB_MAX_LOSSES);
    }
    enum lb_status status = LB_OK;
    for (unsigned i = 0; i < r->loss_functions_count; i++) {
        if (!sound_entry(c, "loss_functions", i)) {
            continue;
        }
        status = lb_read_both(status, check_loss(c, i));
        bool counted = counts(&r->loss_functions[i]);
        any |= counted;
        asks |= counted && lb_loss_find(r->loss_functions[i].function)->on != LB_ON_LABEL;
    }
    if (!sound(c, "loss_functions seq_kd")) {
        return status;
    }
    if (!any) {
        return lb_read_both(
            status, complain(c, "loss_functions", "every weight is 0; there is nothing to learn from"));
    }
    if (r->teachers_count > 0 && !asks && !r->seq_kd) {
        return lb_read_both(
            status, complain(c, "teachers",
                             "no loss function asks them; add one (kl, hs_mse, ...) or drop the teachers"));
    }
    return status == LB_OK && sound(c, "teachers") ? check_use(c) : status;
}

static enum lb_status check_samples(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    if (sound(c, "targets sample_count sample_temperature") && r->targets != LB_LANE_SAMPLES &&
        (r->sample_count != 0 || r->sample_temperature != 0)) {
        return complain(c, r->sample_count != 0 ? "sample_count" : "sample_temperature",
                        "nothing is drawn; set targets: samples, or drop it");
    }
    return LB_OK;
}

static enum lb_status check_steps(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    enum lb_status status = LB_OK;
    if (!sound(c, "max_steps num_train_epochs warmup_steps warmup_ratio")) {
        return LB_OK;
    }
    if (r->max_steps == 0 && !(r->num_train_epochs > 0)) {
        status = complain(c, "num_train_epochs",
                          "max_steps and num_train_epochs are both 0; one of them ends the training");
    }
    if (r->max_steps > 0 && r->warmup_steps > r->max_steps) {
        status = complain(c, "warmup_steps", "%lld steps of warm-up in a run of %lld",
                          (long long)r->warmup_steps, (long long)r->max_steps);
    }
    if (r->warmup_steps > 0 && r->warmup_ratio > 0) {
        status = complain(c, "warmup_ratio",
                          "warmup_steps says how long the warm-up is already; drop one of the two");
    }
    return status;
}

/* A part goes on after a mistake, and looks at what could be read only (sound). */
enum lb_status lb_recipe_check(const struct lb_recipe *recipe, struct lb_mistakes *mistakes) {
    const struct check c = {recipe, mistakes};
    enum lb_status (*const parts[])(const struct check *) = {check_student, check_losses, check_teachers,
                                                             check_samples, check_steps};
    enum lb_status status = lb_recipe_check_data(recipe, mistakes);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        status = lb_read_both(status, parts[i](&c));
    }
    return sound(&c, "lmbda loss_functions teachers datasets eval_datasets max_length whole_texts seq_kd "
                     "seq_kd_ratio off_policy_steps lmbda_ramp_steps log_completions max_new_tokens "
                     "generation_temperature top_p")
               ? lb_read_both(status, lb_recipe_check_written(recipe, mistakes))
               : status;
}
