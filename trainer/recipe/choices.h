/* The choices of a recipe that other rooms act on. */
#ifndef LB_RECIPE_CHOICES_H
#define LB_RECIPE_CHOICES_H

#include "trainer/wire/dialect.h"

#include <stdbool.h>

/* Whether only completions count: of rows with a prompt, or as the recipe says. */
enum lb_completion_only { LB_COMPLETION_ONLY_BY_ROW, LB_COMPLETION_ONLY_NO, LB_COMPLETION_ONLY_YES };
/* Whether texts begin with bos: as the tokenizer says, or as the recipe does. */
enum lb_add_bos { LB_BOS_AS_TOKENIZER, LB_BOS_NO, LB_BOS_YES };
enum lb_data_type { LB_DATA_TEXT, LB_DATA_JSONL, LB_DATA_IDX, LB_DATA_TOKENS, LB_DATA_CSV };
/* Whether an item is a row of features with a label, and no text. */
static inline bool lb_data_features(enum lb_data_type type) {
    return type == LB_DATA_IDX || type == LB_DATA_CSV;
}
/* What is asked of teachers for losses on distributions. */
enum lb_target_lane {
    LB_LANE_FINAL,  /* hidden_states.final + the downloaded head: exact, C numbers a token */
    LB_LANE_TOPK,   /* top-k ids and values, the mass of the rest */
    LB_LANE_LOGITS, /* full logits */
    LB_LANE_SAMPLES /* ids drawn, and how often */
};
/* Whether what teachers send tells the whole distribution. */
static inline bool lb_lane_whole(enum lb_target_lane lane) {
    return lane == LB_LANE_FINAL || lane == LB_LANE_LOGITS;
}
enum lb_optim {
    LB_OPTIM_BY_DEFAULT,
    LB_OPTIM_ADAMW,
    LB_OPTIM_SGD,
    LB_OPTIM_LION,
    LB_OPTIM_MUON
}; /* default: AdamW */
enum lb_schedule {
    LB_SCHEDULE_LINEAR,
    LB_SCHEDULE_COSINE,
    LB_SCHEDULE_CONSTANT,
    LB_SCHEDULE_CONSTANT_WITH_WARMUP, /* the same */
    LB_SCHEDULE_COSINE_WITH_MIN_LR,
    LB_SCHEDULE_WSD
};
/* How warmup_stable_decay goes up (linear where it is not said) and down (cosine). */
enum lb_ramp { LB_RAMP_BY_DEFAULT, LB_RAMP_LINEAR, LB_RAMP_COSINE, LB_RAMP_1_SQRT };
/* What the weights' average is for; by default evaluations and the student. */
enum lb_ema_for { LB_EMA_FOR_ALL, LB_EMA_FOR_EVALUATION, LB_EMA_FOR_STUDENT };
/* What evaluations are compared by. */
enum lb_best_metric {
    LB_METRIC_BY_DEFAULT, /* the loss */
    LB_METRIC_LOSS,
    LB_METRIC_PERPLEXITY,
    LB_METRIC_BALANCED,
    LB_METRIC_BITS_PER_BYTE,
    LB_METRIC_ACCURACY,
    LB_METRIC_ERROR,
    LB_METRIC_ECE
};
enum lb_yes_no { LB_NOT_SAID, LB_NO, LB_YES };
/* How a loss moves from its weight and temperature to those at the end; 0: not at all. */
enum lb_anneal { LB_ANNEAL_NONE, LB_ANNEAL_LINEAR, LB_ANNEAL_COSINE };
/* Which layers of student and teacher a loss on activations compares: those listed, or by their numbers of
 * layers (learn/pairs.c). */
enum lb_layer_rule { LB_LAYERS_LISTED, LB_LAYERS_UNIFORM, LB_LAYERS_LAST, LB_LAYERS_SKIP };
/* Whose text a loss is on. */
enum lb_loss_text { LB_TEXT_ALL, LB_TEXT_DATASET, LB_TEXT_TEACHER, LB_TEXT_STUDENT, LB_TEXT_GIVEN };
enum lb_lost_teacher { LB_LOST_WAIT, LB_LOST_RENORMALISE, LB_LOST_STOP };

#endif
