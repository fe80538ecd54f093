#include "trainer/recipe/fields.h"

#include "proto/limits.h"

#define COUNT_MAX 1e15 /* of steps, tokens, bytes: whole in a double and far from overflowing */
#define SIZE_MAX_ 1e6  /* of one dimension of a model */

#define INT_(s, member, flags, min, max, fallback)                                                           \
    { #member, LB_FIELD_INT, flags, offsetof(struct s, member), 0, min, max, fallback, NULL, NULL, 0 }
#define FLOAT_(s, member, flags, min, max, fallback)                                                         \
    { #member, LB_FIELD_FLOAT, flags, offsetof(struct s, member), 0, min, max, fallback, NULL, NULL, 0 }
#define BOOL_(s, member, flags, fallback)                                                                    \
    { #member, LB_FIELD_BOOL, flags, offsetof(struct s, member), 0, 0, 0, fallback, NULL, NULL, 0 }
#define ENUM_(s, member, flags, names, fallback)                                                             \
    { #member, LB_FIELD_ENUM, flags, offsetof(struct s, member), 0, 0, 0, fallback, names, NULL, 0 }
#define STRING_(s, member, flags, fallback)                                                                  \
    { #member, LB_FIELD_STRING, flags, offsetof(struct s, member), 0, 0, 0, fallback, NULL, NULL, 0 }
#define PATH_(s, member, flags)                                                                              \
    { #member, LB_FIELD_PATH, flags, offsetof(struct s, member), 0, 0, 0, NULL, NULL, NULL, 0 }
#define INTS_(s, member, flags, min, max)                                                                    \
    {                                                                                                        \
#member, LB_FIELD_INTS, flags, offsetof(struct s, member), offsetof(struct s, member##_count), min,  \
            max, NULL, NULL, NULL, sizeof(int64_t)                                                           \
    }
#define STRINGS_(s, member, flags)                                                                           \
    {                                                                                                        \
#member, LB_FIELD_STRINGS, flags, offsetof(struct s, member), offsetof(struct s, member##_count), 0, \
            0, NULL, NULL, NULL, sizeof(char *)                                                              \
    }
#define MAPS_(s, member, flags, type, table)                                                                 \
    {                                                                                                        \
#member, LB_FIELD_MAPS, flags, offsetof(struct s, member), offsetof(struct s, member##_count), 0, 0, \
            NULL, NULL, table, sizeof(struct type)                                                           \
    }
#define MAP_(s, member, flags, table)                                                                        \
    {                                                                                                        \
#member, LB_FIELD_MAP, flags, offsetof(struct s, member), 0, 0, 0, NULL, NULL, table,                \
            sizeof(((struct s *)NULL)->member)                                                               \
    }

enum { REQ = LB_FIELD_REQUIRED, DEC = LB_FIELD_DECIDES };

_Static_assert(sizeof(enum lb_data_type) == sizeof(int) && sizeof(enum lb_schedule) == sizeof(int),
               "enums are read and written as int");

static const struct lb_field_name data_types[] = {
    {"text", LB_DATA_TEXT}, {"jsonl", LB_DATA_JSONL}, {"idx", LB_DATA_IDX}, {NULL, 0}};
static const struct lb_field_name protocols[] = {{"oip", LB_PROTOCOL_OIP}, {NULL, 0}};
static const struct lb_field_name lanes[] = {
    {"final_hidden", LB_LANE_FINAL}, {"topk", LB_LANE_TOPK}, {"logits", LB_LANE_LOGITS}, {NULL, 0}};
static const struct lb_field_name mixtures[] = {
    {"mean_probs", LB_MIX_PROBS}, {"mean_logits", LB_MIX_LOGITS}, {"mean_losses", LB_MIX_LOSSES},
    {"ca_mkd", LB_MIX_CA_MKD},    {"route", LB_MIX_ROUTE},        {NULL, 0}};
static const struct lb_field_name schedules[] = {{"linear", LB_SCHEDULE_LINEAR},
                                                 {"cosine", LB_SCHEDULE_COSINE},
                                                 {"constant", LB_SCHEDULE_CONSTANT},
                                                 {NULL, 0}};
static const struct lb_field_name lost[] = {
    {"wait", LB_LOST_WAIT}, {"renormalise", LB_LOST_RENORMALISE}, {"stop", LB_LOST_STOP}, {NULL, 0}};

#define S lb_recipe_student
static const struct lb_field student_fields[] = {
    PATH_(S, model, 0),
    STRING_(S, model_type, DEC, NULL),
    INT_(S, hidden_size, DEC, 1, SIZE_MAX_, NULL),
    INT_(S, intermediate_size, DEC, 1, SIZE_MAX_, NULL),
    INT_(S, num_hidden_layers, DEC, 1, 1024, NULL),
    INT_(S, num_attention_heads, DEC, 1, 4096, NULL),
    INT_(S, num_key_value_heads, DEC, 1, 4096, NULL),
    INT_(S, head_dim, DEC, 1, 4096, NULL),
    INT_(S, max_position_embeddings, DEC, 1, 16777216, NULL),
    FLOAT_(S, rope_theta, DEC, 1e-3, 1e12, NULL),
    FLOAT_(S, norm_eps, DEC, 1e-12, 1e-1, NULL),
    FLOAT_(S, initializer_range, DEC, 1e-8, 10, NULL),
    BOOL_(S, tie_word_embeddings, DEC, NULL),
    INT_(S, input_size, DEC, 1, SIZE_MAX_, NULL),
    INT_(S, num_labels, DEC, 2, SIZE_MAX_, NULL),
    INTS_(S, hidden_sizes, DEC, 1, SIZE_MAX_),
    FLOAT_(S, input_dropout, DEC, 0, 0.99, NULL),
    FLOAT_(S, hidden_dropout, DEC, 0, 0.99, NULL),
    {NULL},
};
#undef S

#define S lb_recipe_dataset
static const struct lb_field dataset_fields[] = {
    PATH_(S, path, REQ),
    ENUM_(S, type, DEC, data_types, NULL), /* by the path's ending: recipe_shape.c */
    STRING_(S, tag, DEC, NULL),
    STRING_(S, field, DEC, NULL),
    PATH_(S, labels, 0),
    INT_(S, max_tokens, DEC, 0, COUNT_MAX, "0"),
    INT_(S, skip_samples, DEC, 0, COUNT_MAX, "0"),
    INT_(S, max_samples, DEC, 0, COUNT_MAX, "0"),
    INTS_(S, exclude_labels, DEC, 0, SIZE_MAX_),
    {NULL},
};
#undef S

#define S lb_recipe_teacher
static const struct lb_field teacher_fields[] = {
    STRING_(S, name, REQ, NULL),
    PATH_(S, url, REQ),
    STRING_(S, model, 0, NULL),
    STRINGS_(S, replicas, 0),
    ENUM_(S, protocol, 0, protocols, "oip"),
    FLOAT_(S, weight, DEC, 0, 1e6, "1"),
    STRINGS_(S, tags, DEC),
    PATH_(S, token_file, 0),
    {NULL},
};
#undef S

#define S lb_layer_pair
static const struct lb_field layer_fields[] = {
    INT_(S, student, REQ | DEC, -1, 1024, NULL),
    INT_(S, teacher, REQ | DEC, -1, 1024, NULL),
    {NULL},
};
#undef S

#define S lb_recipe_loss
static const struct lb_field loss_fields[] = {
    STRING_(S, function, REQ | DEC, NULL),
    FLOAT_(S, weight, DEC, 0, 1e6, "1"),
    FLOAT_(S, temperature, DEC, 0, LB_MAX_TEMPERATURE, "0"),
    MAPS_(S, layer_mapping, DEC, lb_layer_pair, layer_fields),
    BOOL_(S, normalize, DEC, "false"),
    {NULL},
};
#undef S

/* Not in the fingerprint: places, what only waits or watches, and on_lost_teacher, so that a run whose
 * teacher died can go on without it. */
#define S lb_recipe
const struct lb_field lb_recipe_fields[] = {
    MAP_(S, student, REQ | DEC, student_fields),
    PATH_(S, tokenizer, 0),
    MAPS_(S, datasets, REQ | DEC, lb_recipe_dataset, dataset_fields),
    MAPS_(S, eval_datasets, 0, lb_recipe_dataset, dataset_fields),
    MAPS_(S, teachers, DEC, lb_recipe_teacher, teacher_fields),
    MAPS_(S, loss_functions, REQ | DEC, lb_recipe_loss, loss_fields),
    ENUM_(S, mixture, DEC, mixtures, "mean_probs"),
    ENUM_(S, targets, DEC, lanes, NULL), /* final_hidden, for classifiers logits: recipe_shape.c */
    INT_(S, loss_top_k, DEC, 1, LB_MAX_TOP_K, "64"),
    BOOL_(S, loss_add_tail, DEC, "true"),
    FLOAT_(S, temperature, DEC, LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE, "1"),
    ENUM_(S, on_lost_teacher, 0, lost, "wait"),
    FLOAT_(S, teacher_timeout, 0, 0.1, 86400, "60"),
    INT_(S, prefetch, 0, 1, 1024, "4"),
    BOOL_(S, fp16_targets, DEC, "true"),
    PATH_(S, cache_dir, 0),
    INT_(S, cache_max_bytes, 0, 1048576, COUNT_MAX, "8589934592"),
    FLOAT_(S, learning_rate, DEC, 0, 100, "2e-4"),
    FLOAT_(S, min_lr_ratio, DEC, 0, 1, "0"),
    FLOAT_(S, warmup_ratio, DEC, 0, 1, "0"),
    FLOAT_(S, weight_decay, DEC, 0, 10, "0"),
    FLOAT_(S, adam_beta1, DEC, 0, 0.999999, "0.9"),
    FLOAT_(S, adam_beta2, DEC, 0, 0.999999, "0.999"),
    FLOAT_(S, adam_epsilon, DEC, 1e-20, 1, "1e-8"),
    FLOAT_(S, max_grad_norm, DEC, 0, 1e9, "1"), /* 0: gradients are not clipped */
    ENUM_(S, lr_scheduler_type, DEC, schedules, "linear"),
    INT_(S, warmup_steps, DEC, 0, COUNT_MAX, "0"),
    INT_(S, max_steps, DEC, 0, COUNT_MAX, "0"),
    INT_(S, per_device_train_batch_size, DEC, 1, LB_MAX_SEQUENCES, "8"),
    INT_(S, gradient_accumulation_steps, DEC, 1, 65536, "1"),
    INT_(S, max_length, DEC, 1, LB_MAX_REQUEST_TOKENS, "1024"),
    FLOAT_(S, num_train_epochs, DEC, 0, 1e6, "3"),
    INT_(S, save_steps, 0, 0, COUNT_MAX, "200"), /* 0: only at the end */
    INT_(S, save_total_limit, 0, 1, 10000, "2"),
    INT_(S, eval_steps, 0, 0, COUNT_MAX, "0"), /* 0: only at the end */
    INT_(S, logging_steps, 0, 1, COUNT_MAX, "10"),
    INT_(S, seed, DEC, 0, COUNT_MAX, "42"),
    INT_(S, threads, 0, 0, 4096, "0"), /* 0: as many as cores */
    PATH_(S, output_dir, REQ),
    {NULL},
};
#undef S
