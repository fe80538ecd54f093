#include "trainer/run/student.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/run/evaluate.h"

#include <string.h>

static enum lb_status no_memory(struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "out of memory");
}

/* One that the recipe starts from. */
static enum lb_status open_given(const struct lb_recipe *recipe, const struct lb_tokenizer *tokenizer,
                                 struct lb_model **out, struct lb_detail *detail) {
    struct lb_model *student = NULL;
    char *path = lb_recipe_resolve(recipe, recipe->student.model);
    bool some = recipe->student.layers_count > 0;
    enum lb_status status = LB_OK;
    if (path == NULL) {
        status = no_memory(detail);
    } else if (recipe->student.num_labels > 0) {
        status =
            lb_model_with_classes(path, some ? recipe->student.layers : NULL, recipe->student.layers_count,
                                  recipe->student.num_labels, (uint64_t)recipe->seed, &student, detail);
    } else if (some) {
        status = lb_model_from_layers(path, recipe->student.layers, recipe->student.layers_count, &student,
                                      detail);
    } else {
        status = lb_model_open(path, true, &student, detail);
    }
    lb_free(path);
    if (status == LB_OK && recipe->disable_dropout != LB_NO && lb_model_disable_dropout(student)) {
        lb_log(LB_LOG_INFO, "dropout_off",
               "why=\"the student exists: it learns without the dropout of its config\" "
               "remedy=\"disable_dropout: false keeps it\"");
    }
    if (status != LB_OK) {
        lb_detail_prefix(detail, some ? "student.layers_from" : "student.model");
    }
    if (status == LB_OK) {
        lb_log_notes("model_note", NULL, lb_model_notes(student));
    }
    if (status == LB_OK && tokenizer != NULL && lb_model_config(student)->input_size == 0) {
        status = lb_tokenizer_fits(tokenizer, lb_model_config(student)->vocab_size, "student.model", detail);
        if (status == LB_OK && lb_tokenizer_eos(tokenizer) >= 0) {
            status = lb_model_train_end(student, lb_tokenizer_eos(tokenizer), detail);
        }
    }
    if (status != LB_OK) {
        lb_model_destroy(student);
        return status;
    }
    *out = student;
    return LB_OK;
}

static enum lb_status create(const struct lb_recipe *recipe, const struct lb_tokenizer *tokenizer,
                             int64_t vocab_size, struct lb_model **out, struct lb_detail *detail) {
    struct lb_config config = recipe->student.config;
    if (tokenizer != NULL) {
        config.vocab_size = vocab_size;
        config.eos_token_id = lb_tokenizer_eos(tokenizer);
        config.bos_token_id = lb_tokenizer_bos(tokenizer);
        config.pad_token_id = lb_tokenizer_named(tokenizer, "pad_token");
        if (config.position_rows > 0) { /* of which the first ones are not positions */
            config.max_position_embeddings = config.position_rows - config.pad_token_id - 1;
        }
    }
    enum lb_status status = lb_model_create(&config, (uint64_t)recipe->seed, out, detail);
    if (status == LB_OK && recipe->disable_dropout == LB_YES) {
        (void)lb_model_disable_dropout(*out);
    }
    return status;
}

enum lb_status lb_student_open(const struct lb_recipe *recipe, const struct lb_tokenizer *tokenizer,
                               struct lb_model **out, struct lb_detail *detail) {
    if (recipe->student.model != NULL) {
        return open_given(recipe, tokenizer, out, detail);
    }
    return create(recipe, tokenizer, tokenizer != NULL ? lb_tokenizer_vocab_size(tokenizer) : 0, out, detail);
}

/* Whether the teacher reads the ids of this tokenizer. One whose server does not tell its tokenizer, and
 * whose recipe doesn't either, does: what it makes of texts is held against the tokenizer (plan.c,
 * check_tokenizer). */
static bool reads_its_ids(const struct lb_teacher_info *info, const struct lb_tokenizer *tokenizer) {
    const char *its = info->tokenizer_fingerprint;
    return (its[0] == '\0' && info->stated[0] != '\0') ||
           strcmp(its, lb_tokenizer_fingerprint(tokenizer)) == 0;
}

enum lb_status lb_student_pad(const struct lb_recipe *recipe, const struct lb_tokenizer *tokenizer,
                              const struct lb_teachers *teachers, struct lb_model **student,
                              struct lb_detail *detail) {
    unsigned n = teachers != NULL ? lb_teachers_count(teachers) : 0;
    if (n == 0 || tokenizer == NULL || recipe->student.model != NULL) {
        return LB_OK;
    }
    int64_t v = 0; /* of those that read its ids */
    for (unsigned k = 0; k < n; k++) {
        const struct lb_teacher_info *info = lb_teachers_info(teachers, k);
        if (!reads_its_ids(info, tokenizer) || lb_info_ids(info) == 0) { /* 0: not told */
            continue;
        }
        if (v > 0 && lb_info_ids(info) != v) {
            return LB_OK;
        }
        v = lb_info_ids(info);
    }
    if (v <= lb_tokenizer_vocab_size(tokenizer)) {
        return LB_OK;
    }
    lb_log(
        LB_LOG_INFO, "padded_vocabulary",
        "tokens=%d rows=%lld note=\"the teachers' vocabulary is padded beyond their tokenizer's; so is the "
        "student's\"",
        lb_tokenizer_vocab_size(tokenizer), (long long)v);
    struct lb_model *padded = NULL;
    enum lb_status status = create(recipe, tokenizer, v, &padded, detail);
    if (status == LB_OK) {
        lb_model_destroy(*student);
        *student = padded;
    }
    return status;
}

enum lb_status lb_student_name_labels(const struct lb_recipe *recipe, const struct lb_teachers *teachers,
                                      struct lb_model *student, struct lb_detail *detail) {
    const struct lb_labels *own = lb_model_labels(student);
    enum lb_status status = LB_OK;
    bool given = recipe->student.model != NULL && recipe->student.num_labels == 0;
    bool named = own == NULL || given || teachers == NULL;
    for (unsigned k = 0; !named && status == LB_OK && k < lb_teachers_count(teachers); k++) {
        const struct lb_teacher_info *info = lb_teachers_info(teachers, k);
        struct lb_labels its = {0};
        if (info->num_labels != own->n || info->labels[0] == '\0') {
            continue;
        }
        status = lb_info_labels(info, &its);
        its.problem = own->problem;
        status = status == LB_OK ? lb_model_set_labels(student, &its) : status;
        lb_labels_finish(&its);
        named = true;
    }
    return status == LB_OK ? LB_OK : no_memory(detail);
}

enum lb_status lb_student_freeze(const struct lb_recipe *recipe, struct lb_model *student,
                                 struct lb_detail *detail) {
    size_t n;
    const struct lb_weight *w = lb_model_weights(student, &n);
    for (unsigned i = 0; i < recipe->frozen_parameters_count; i++) {
        if (lb_model_freeze(student, recipe->frozen_parameters[i]) == 0) {
            return lb_fail(
                detail, LB_E_ARG,
                "frozen_parameters.%u: the student has no parameter \"%.100s\"; they are called %s, ..., %s",
                i, recipe->frozen_parameters[i], w[0].name, w[n - 1].name);
        }
    }
    int64_t learn = 0, frozen = 0;
    for (size_t i = 0; i < n; i++) {
        *(w[i].grad != NULL ? &learn : &frozen) += w[i].rows * w[i].cols;
    }
    if (frozen > 0) {
        lb_log(LB_LOG_INFO, "frozen", "parameters=%lld learn=%lld", (long long)frozen, (long long)learn);
    }
    return learn > 0 ? LB_OK
                     : lb_fail(detail, LB_E_ARG,
                               "frozen_parameters: nothing is left that could learn; freeze less");
}

/* Labels are read for a classifier only. */
static enum lb_status check_label_fields(const char *key, const struct lb_recipe_dataset *datasets,
                                         unsigned n, const struct lb_model *student,
                                         struct lb_detail *detail) {
    for (unsigned i = 0; i < n && lb_model_labels(student) == NULL; i++) {
        if (datasets[i].label_field != NULL && datasets[i].type != LB_DATA_CSV) {
            return lb_fail(detail, LB_E_ARG,
                           "%s.%u.label_field: this %s does not classify texts; drop the key", key, i,
                           lb_model_config(student)->model_type);
        }
    }
    return LB_OK;
}

enum lb_status lb_student_reads(const struct lb_recipe *recipe, const struct lb_model *student,
                                struct lb_detail *detail) {
    const struct lb_config *c = lb_model_config(student);
    bool encoder = c->input_size == 0 && !lb_model_is_causal(student);
    bool whole = encoder || lb_model_labels(student) != NULL;
    if (recipe->whole_texts != whole) {
        return lb_fail(
            detail, LB_E_ARG,
            encoder ? "whole_texts: a %s is an encoder, which reads each text by itself; set it to true"
            : whole ? "whole_texts: a %s that classifies texts reads each by itself; set it to true"
                    : "whole_texts: a %s reads texts that are strung together; drop the key",
            c->model_type);
    }
    enum lb_status status =
        check_label_fields("datasets", recipe->datasets, recipe->datasets_count, student, detail);
    status = status == LB_OK ? check_label_fields("eval_datasets", recipe->eval_datasets,
                                                  recipe->eval_datasets_count, student, detail)
                             : status;
    if (status != LB_OK) {
        return status;
    }
    if (recipe->eval_datasets_count > 0 && lb_model_head(student)->weight == NULL) {
        return lb_fail(detail, LB_E_ARG,
                       "eval_datasets: a %s without a head predicts nothing that could be evaluated",
                       c->model_type);
    }
    return recipe->eval_datasets_count > 0
               ? lb_evaluate_classes(lb_model_labels(student), "eval_datasets: the student", detail)
               : LB_OK;
}
