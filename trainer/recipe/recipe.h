/* The recipe: the YAML file that says everything about one training run. Read as the table of its keys says
 * (fields.c), checked as a whole, and written back resolved into the run folder. An unknown key is an error
 * with the nearest name.
 */
#ifndef LB_RECIPE_RECIPE_H
#define LB_RECIPE_RECIPE_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"
#include "common/formats/config.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"
#include "trainer/recipe/choices.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_yaml;

struct lb_recipe_student {
    const char *model; /* folder or file to start from; NULL: new, from config */
    int64_t *layers;   /* of that model the layers that the student has, in their order; NULL: all */
    unsigned layers_count;
    int64_t num_labels;      /* of a new head on that model; 0: none */
    struct lb_config config; /* of a new one; the tokenizer adds a decoder's vocabulary and ends of text */
    const char *others; /* lines of YAML: keys that were given and that only the family knows; NULL: none */
};

#define LB_MAX_WEIGHTED_SETS 1024 /* datasets that have weights */

struct lb_recipe_dataset {
    const char *path; /* text: one document a line; jsonl: one object a line; idx: images; tokens, csv */
    enum lb_data_type type;
    const char *tag;          /* names the part: for routing and for per-tag evaluation; NULL: none */
    const char *field;        /* jsonl: the text's key ("text") */
    const char *label_field;  /* of classifiers: jsonl's key, csv's column ("label") */
    const char *weight_field; /* jsonl's key, csv's column of how often a row's losses count; NULL: none */
    const char *labels;       /* idx: the labels' file */
    double weight;         /* how often its samples come, as a share of all weights; NAN: as many as it has */
    int64_t max_tokens;    /* 0: all; else the first so many tokens */
    int64_t prompt_length; /* texts: tokens at a row's beginning that a text is written behind; 0: none */
    int64_t skip_samples, max_samples; /* idx, csv: a range of items; max 0: to the end */
    int64_t *exclude_labels;           /* idx, csv: items of these classes are left out */
    unsigned exclude_labels_count;
};

struct lb_recipe_pair {
    const char *key, *value;
};

struct lb_recipe_teacher {
    const char *name;
    const char *url;   /* http(s)://host:port, or local:PATH: the trainer starts its own daemon for the run */
    const char *model; /* the model's name on that server; NULL: the only one there */
    const char **replicas; /* further URLs of the same teacher */
    unsigned replicas_count;
    enum lb_protocol protocol;
    double weight; /* of the mixture; 1 */
    enum lb_anneal anneal;
    int64_t anneal_steps;       /* 0: all of the run */
    double weight_end;          /* where it anneals; NAN: it does not */
    const char *teacher_prompt; /* the member of records that it reads in place of their prompt; NULL: none */
    const char **tags;          /* for route */
    unsigned tags_count;
    const char *token_file;
    const char *head;      /* of servers that serve none; NULL: none */
    const char *tokenizer; /* the same */
    int64_t max_logprobs;  /* how many ids of a row the server lists; 0: as its dialect says */
    struct lb_recipe_pair *names, *extra_inputs; /* tensors of an OIP server that is no limbeckd */
    unsigned names_count, extra_inputs_count;
};

struct lb_layer_pair {
    int64_t student, teacher; /* hidden_states / attentions numbers; -1: final */
};

struct lb_recipe_loss {
    const char *function;                /* a name of the loss table */
    struct lb_loss_args args;            /* weight 1; temperature 0: the recipe's */
    struct lb_layer_pair *layer_mapping; /* hidden and attention losses; none: final to final */
    unsigned layer_mapping_count;
    enum lb_layer_rule layer_rule; /* not LB_LAYERS_LISTED: the pairs follow from the depths */
    enum lb_anneal anneal;
    int64_t anneal_steps;               /* 0: all of the run */
    double weight_end, temperature_end; /* where it anneals; NAN: as at the start */
    const char **teachers;              /* names of those it learns from; none: all */
    unsigned teachers_count;
    enum lb_loss_text on; /* all */
};

/* lr_scheduler_kwargs as numbers; what is not there is 0. */
struct lb_schedule_args {
    double min_lr_rate; /* min_lr, min_lr_rate, min_lr_ratio: as a share of learning_rate */
    double num_cycles;  /* of the cosine; 0: half of one */
    int64_t num_decay_steps, num_stable_steps;
    enum lb_ramp warmup_type, decay_type;
};

struct lb_recipe {
    struct lb_arena arena;      /* holds what stands below, and the tree */
    const struct lb_yaml *tree; /* as it was read, for the lines of errors; NULL in a recipe made by hand */
    const char *path;           /* of the file, for errors */
    const char *notes; /* lines: what became of each key of another tool's recipe; NULL: it is one of ours */
    const char *directory; /* of the file: paths in it are relative to it */
    struct lb_recipe_student student;
    const char *tokenizer; /* tokenizer.json; NULL for classifiers */
    enum lb_add_bos add_bos_token;
    const char *chat_template; /* a Jinja file; NULL: the tokenizer's */
    enum lb_completion_only completion_only_loss;
    bool assistant_only_loss; /* false */
    bool whole_texts;         /* false */
    struct lb_recipe_dataset *datasets, *eval_datasets;
    unsigned datasets_count, eval_datasets_count;
    struct lb_recipe_teacher *teachers;
    unsigned teachers_count;
    struct lb_recipe_loss *loss_functions;
    unsigned loss_functions_count;
    const char *mixture;             /* a name of the mixture table */
    enum lb_mixture_by mixture_by;   /* of those that are told */
    enum lb_mixture_per mixture_per; /* default: the mixture's */
    double mixture_temperature;      /* 0: 1 */
    enum lb_mixture_states mixture_states;
    enum lb_target_lane targets;
    int64_t loss_top_k;        /* 64 */
    bool loss_add_tail;        /* true */
    int64_t sample_count;      /* 50 where targets are samples, else 0 */
    double sample_temperature; /* 0: temperature */
    double temperature;        /* 1 */
    enum lb_lost_teacher on_lost_teacher;
    bool allow_other_kernels; /* who answers is known by its fingerprint alone; false */
    double teacher_timeout;   /* seconds an answer may take before it is asked again; 60 */
    double
        give_up_after; /* seconds a teacher may be lost (but for wait) or answer wrongly; 0: for ever; 120 */
    int64_t prefetch;  /* steps asked ahead; 4 */
    bool fp16_targets; /* floating targets travel and are cached as FP16; true */
    const char *cache_dir;   /* NULL: no cache */
    int64_t cache_max_bytes; /* 8 GiB */
    /* optimisation, Hugging Face's names */
    double learning_rate, min_lr_ratio, warmup_ratio, weight_decay, adam_beta1, adam_beta2, adam_epsilon,
        max_grad_norm;
    enum lb_optim optim;
    const char *optim_args; /* as Hugging Face has them: "momentum=0.9,nesterov=true" */
    double momentum;        /* of sgd and muon; read from optim_args */
    bool nesterov;
    enum lb_schedule lr_scheduler_type;
    struct lb_recipe_pair *lr_scheduler_kwargs;
    unsigned lr_scheduler_kwargs_count;
    struct lb_schedule_args schedule; /* read from them */
    bool warmup_from_zero;            /* false */
    int64_t warmup_max_steps;         /* 0: warmup_ratio of any number */
    int64_t warmup_steps, max_steps, per_device_train_batch_size, gradient_accumulation_steps, max_length;
    double num_train_epochs; /* used when max_steps is 0 */
    int64_t save_steps, save_total_limit, eval_steps, logging_steps, seed, threads;
    const char *output_dir;
    enum lb_yes_no disable_dropout; /* not said: of a student that exists */
    bool use_peft;                  /* false */
    int64_t lora_r;
    double lora_alpha;
    const char **lora_target_modules; /* none: all linear ones */
    unsigned lora_target_modules_count;
    const char **frozen_parameters; /* patterns of names */
    unsigned frozen_parameters_count;
    double ema_decay; /* of the weights' average; 0: none */
    enum lb_ema_for ema_for;
    /* comparing evaluations */
    enum lb_best_metric metric_for_best_model;
    enum lb_yes_no greater_is_better;
    bool load_best_model_at_end;     /* false */
    int64_t early_stopping_patience; /* 0: none */
    double early_stopping_threshold;

    /* The student's own text. */
    double lmbda;                               /* share of micro-batches whose completions it writes; 0 */
    int64_t off_policy_steps, lmbda_ramp_steps; /* steps that lmbda is 0 in, and that it rises in then */
    int64_t max_new_tokens;                     /* of a text; 128 */
    double generation_temperature, top_p;       /* of what is drawn; 1 */
    bool log_completions;
    bool seq_kd;         /* where the student does not write, a teacher does */
    double seq_kd_ratio; /* of these micro-batches; 1 */

    bool eval_agreement; /* evaluations ask the teachers too */
};

/* The member of records that any teacher reads in place of their prompts; NULL: none does. */
static inline const char *lb_recipe_teacher_prompt(const struct lb_recipe *recipe) {
    const char *member = NULL;
    for (unsigned k = 0; k < recipe->teachers_count && member == NULL; k++) {
        member = recipe->teachers[k].teacher_prompt;
    }
    return member;
}

/* lr_scheduler_type as a recipe has it. */
const char *lb_recipe_schedule_name(enum lb_schedule type);
/* Whether the teacher has that tag; NULL is none. */
bool lb_recipe_has_tag(const struct lb_recipe_teacher *teacher, const char *tag);

/* Whether texts are written for the run, by the student or a teacher, so that it must be known what prompts
 * are. */
static inline bool lb_recipe_writes(const struct lb_recipe *recipe) {
    return recipe->lmbda > 0 || recipe->seq_kd;
}

/* Loads, applies overrides ("learning_rate=1e-3", n of them, as --set gives them), fills defaults, checks.
 * Errors name file, line where known (or --set), key and remedy; of several the first one in the file. */
LB_NODISCARD enum lb_status lb_recipe_load(const char *path, const char *const *overrides, size_t n_overrides,
                                           struct lb_recipe **out, struct lb_detail *detail);
/* The same from memory; path is what errors name and what relative paths start from. */
LB_NODISCARD enum lb_status lb_recipe_parse(const char *text, size_t len, const char *path,
                                            const char *const *overrides, size_t n_overrides,
                                            struct lb_recipe **out, struct lb_detail *detail);
/* The same two, and all that is wrong appended to lines, a line each in the order of the file. */
LB_NODISCARD enum lb_status lb_recipe_load_all(const char *path, const char *const *overrides,
                                               size_t n_overrides, struct lb_buf *lines,
                                               struct lb_recipe **out, struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_recipe_parse_all(const char *text, size_t len, const char *path,
                                                const char *const *overrides, size_t n_overrides,
                                                struct lb_buf *lines, struct lb_recipe **out,
                                                struct lb_detail *detail);
void lb_recipe_destroy(struct lb_recipe *recipe);
/* The resolved recipe as YAML on the heap (lb_free). Loading it again gives the same recipe. */
LB_NODISCARD enum lb_status lb_recipe_dump(const struct lb_recipe *recipe, char **out_text, size_t *out_len,
                                           struct lb_detail *detail);
/* LB_E_ARG, or code: "<file>:<line>: <path>: <text>" with the line where the dotted path stands, for errors
 * that show when the recipe meets data and models. */
enum lb_status lb_recipe_fail(const struct lb_recipe *recipe, struct lb_detail *detail, enum lb_status code,
                              const char *path, const char *format, ...) LB_PRINTF(5, 6);
/* Puts "<file>:<line>: " before an error that begins with a key of the recipe
 * ("loss_functions.1.layer_mapping: ...") and came from a room that knows no lines. */
void lb_recipe_locate(const struct lb_recipe *recipe, struct lb_detail *detail);
/* What a data file is by its name's ending. LB_E_ARG: nothing that is read (a table, one JSON value, packed),
 * with what to do. */
LB_NODISCARD enum lb_status lb_recipe_data_type(const char *path, enum lb_data_type *out,
                                                struct lb_detail *detail);
/* Every key with its default and what it is for, as a Markdown table, and below it the names that losses and
 * the like have; appended to buf. */
enum lb_status lb_recipe_help(struct lb_buf *buf);
/* SHA-256 (hex) over everything that decides the result: a run resumes only with the same. Leaves out
 * output_dir, logging, saving, URLs, timeouts, cache place, threads; and keys that say what would be meant
 * without them (LB_FIELD_MEANT). LB_E_NOMEM: all zero. */
enum lb_status lb_recipe_fingerprint(const struct lb_recipe *recipe, char out[65]);
/* How long "local:" or "unix:" before a place on this machine is; 0: there is none. */
size_t lb_recipe_scheme(const char *place);
/* The first line in which two recipes decide differently, as "there KEY: A, here KEY: B" (or "there no KEY")
 * into out; false when they do not (or memory ran out). there: the one that was trained by. */
bool lb_recipe_difference(const struct lb_recipe *there, const struct lb_recipe *here, char *out,
                          size_t out_size);
/* A place as it stands in the recipe, made relative to the recipe's folder unless it is absolute or a URL of
 * another machine; heap (lb_free). */
char *lb_recipe_resolve(const struct lb_recipe *recipe, const char *path);

#endif
