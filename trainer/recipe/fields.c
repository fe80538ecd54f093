#include "trainer/recipe/fields.h"

#include "common/formats/config.h"
#include "proto/limits.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_MAX 1e15 /* of steps, tokens, bytes: whole in a double and far from overflowing */
#define SIZE_MAX_ 1e6  /* of one dimension of a model */

/* S is the struct that a table is about. */
#define PLACE_(member) .key = #member, .offset = offsetof(struct S, member)
#define LIST_(member) PLACE_(member), .count_offset = offsetof(struct S, member##_count)
#define INT_(member, f, low, high, value, text)                                                              \
    {                                                                                                        \
        PLACE_(member), .kind = LB_FIELD_INT, .flags = f, .min = low, .max = high, .fallback = value,        \
                        .help = text                                                                         \
    }
#define FLOAT_(member, f, low, high, value, text)                                                            \
    {                                                                                                        \
        PLACE_(member), .kind = LB_FIELD_FLOAT, .flags = f, .min = low, .max = high, .fallback = value,      \
                        .help = text                                                                         \
    }
#define BOOL_(member, f, value, text)                                                                        \
    { PLACE_(member), .kind = LB_FIELD_BOOL, .flags = f, .fallback = value, .help = text }
#define ENUM_(member, f, list, value, text)                                                                  \
    { PLACE_(member), .kind = LB_FIELD_ENUM, .flags = f, .names = list, .fallback = value, .help = text }
#define STRING_(member, f, value, text)                                                                      \
    { PLACE_(member), .kind = LB_FIELD_STRING, .flags = f, .fallback = value, .help = text }
#define PATH_(member, f, text)                                                                               \
    { PLACE_(member), .kind = LB_FIELD_PATH, .flags = f, .help = text }
#define INTS_(member, f, low, high, text)                                                                    \
    { LIST_(member), .kind = LB_FIELD_INTS, .flags = f, .min = low, .max = high, .help = text }
#define STRINGS_(member, f, text)                                                                            \
    { LIST_(member), .kind = LB_FIELD_STRINGS, .flags = f, .help = text }
#define PAIRS_(member, f, text)                                                                              \
    { LIST_(member), .kind = LB_FIELD_PAIRS, .flags = f, .help = text }
#define MAPS_(member, f, type, table, text)                                                                  \
    {                                                                                                        \
        LIST_(member), .kind = LB_FIELD_MAPS, .flags = f, .fields = table,                                   \
                       .entry_bytes = sizeof(struct type), .help = text                                      \
    }

enum { REQ = LB_FIELD_REQUIRED, DEC = LB_FIELD_DECIDES, MEANT = LB_FIELD_MEANT };

_Static_assert(sizeof(enum lb_data_type) == sizeof(int) && sizeof(enum lb_schedule) == sizeof(int),
               "enums are read and written as int");

static const struct lb_field_name data_types[] = {{"text", LB_DATA_TEXT}, {"jsonl", LB_DATA_JSONL},
                                                  {"idx", LB_DATA_IDX},   {"tokens", LB_DATA_TOKENS},
                                                  {"csv", LB_DATA_CSV},   {NULL, 0}};
#define PROTOCOL_(kind, name) {#name, LB_PROTOCOL_##kind},
static const struct lb_field_name protocols[] = {LB_DIALECTS(PROTOCOL_){NULL, 0}};
static const struct lb_field_name lanes[] = {{"final_hidden", LB_LANE_FINAL},
                                             {"topk", LB_LANE_TOPK},
                                             {"logits", LB_LANE_LOGITS},
                                             {"samples", LB_LANE_SAMPLES},
                                             {NULL, 0}};
static const struct lb_field_name schedules[] = {{"linear", LB_SCHEDULE_LINEAR},
                                                 {"cosine", LB_SCHEDULE_COSINE},
                                                 {"constant", LB_SCHEDULE_CONSTANT},
                                                 {"constant_with_warmup", LB_SCHEDULE_CONSTANT_WITH_WARMUP},
                                                 {"cosine_with_min_lr", LB_SCHEDULE_COSINE_WITH_MIN_LR},
                                                 {"warmup_stable_decay", LB_SCHEDULE_WSD},
                                                 {NULL, 0}};
static const struct lb_field_name metrics[] = {{"eval_loss", LB_METRIC_LOSS},
                                               {"loss", LB_METRIC_LOSS},
                                               {"eval_perplexity", LB_METRIC_PERPLEXITY},
                                               {"perplexity", LB_METRIC_PERPLEXITY},
                                               {"eval_perplexity_balanced", LB_METRIC_BALANCED},
                                               {"eval_bits_per_byte", LB_METRIC_BITS_PER_BYTE},
                                               {"bits_per_byte", LB_METRIC_BITS_PER_BYTE},
                                               {"eval_accuracy", LB_METRIC_ACCURACY},
                                               {"accuracy", LB_METRIC_ACCURACY},
                                               {"eval_error", LB_METRIC_ERROR},
                                               {"eval_ece", LB_METRIC_ECE},
                                               {NULL, 0}};
static const struct lb_field_name ema_uses[] = {
    {"evaluation", LB_EMA_FOR_EVALUATION}, {"student", LB_EMA_FOR_STUDENT}, {NULL, 0}};
static const struct lb_field_name yes_no[] = {{"true", LB_YES}, {"false", LB_NO}, {NULL, 0}};
static const struct lb_field_name optims[] = {
    {"adamw_torch", LB_OPTIM_ADAMW}, {"adamw_torch_fused", LB_OPTIM_ADAMW},
    {"sgd", LB_OPTIM_SGD},           {"lion_32bit", LB_OPTIM_LION},
    {"muon", LB_OPTIM_MUON},         {NULL, 0}};
static const struct lb_field_name completion_only[] = {
    {"true", LB_COMPLETION_ONLY_YES}, {"false", LB_COMPLETION_ONLY_NO}, {NULL, 0}};
static const struct lb_field_name add_bos[] = {{"true", LB_BOS_YES}, {"false", LB_BOS_NO}, {NULL, 0}};
static const struct lb_field_name anneals[] = {
    {"linear", LB_ANNEAL_LINEAR}, {"cosine", LB_ANNEAL_COSINE}, {NULL, 0}};
static const struct lb_field_name mixture_by[] = {
    {"ce", LB_BY_CE}, {"entropy", LB_BY_ENTROPY}, {"max_prob", LB_BY_MAX_PROB}, {NULL, 0}};
static const struct lb_field_name mixture_states[] = {
    {"teacher", LB_STATES_TEACHER}, {"student", LB_STATES_STUDENT}, {NULL, 0}};
static const struct lb_field_name mixture_per[] = {
    {"sequence", LB_PER_SEQUENCE}, {"token", LB_PER_TOKEN}, {"batch", LB_PER_BATCH}, {NULL, 0}};

static const struct lb_field_name layer_rules[] = {
    {"uniform", LB_LAYERS_UNIFORM}, {"last", LB_LAYERS_LAST}, {"skip", LB_LAYERS_SKIP}, {NULL, 0}};
static const struct lb_field_name loss_texts[] = {{"dataset", LB_TEXT_DATASET},
                                                  {"teacher", LB_TEXT_TEACHER},
                                                  {"student", LB_TEXT_STUDENT},
                                                  {"given", LB_TEXT_GIVEN},
                                                  {NULL, 0}};
static const struct lb_field_name lost[] = {
    {"wait", LB_LOST_WAIT}, {"renormalise", LB_LOST_RENORMALISE}, {"stop", LB_LOST_STOP}, {NULL, 0}};

static const char *loss_name(size_t i) {
    const struct lb_loss *loss = lb_loss_at(i);
    return loss != NULL ? loss->name : NULL;
}

static const char *mixture_name(size_t i) {
    const struct lb_mixture *mixture = lb_mixture_at(i);
    return mixture != NULL ? mixture->name : NULL;
}

/* The order is that of the fingerprint's text: new keys go to the end. */
#define KEY_(name, k, member, value, text)                                                                   \
    {                                                                                                        \
        .key = name, .kind = LB_FIELD_##k, .offset = offsetof(struct lb_config, member), .derived = value,   \
        .help = text                                                                                         \
    }
const struct lb_student_field lb_student_fields[] = {
    KEY_("model_type", STRING, model_type, "llama; limbeck_mlp where there is an input_size", "the family"),
    KEY_("hidden_size", INT, hidden_size, NULL, "width of the states"),
    KEY_("intermediate_size", INT, intermediate_size, NULL, "width inside the feed-forward blocks"),
    KEY_("num_hidden_layers", INT, num_hidden_layers, NULL, "blocks"),
    KEY_("num_attention_heads", INT, num_attention_heads, NULL, "heads of queries"),
    KEY_("num_key_value_heads", INT, num_key_value_heads, "num_attention_heads", "heads of keys and values"),
    KEY_("head_dim", INT, head_dim, "hidden_size / num_attention_heads", "width of one head"),
    KEY_("max_position_embeddings", INT, max_position_embeddings, "2048",
         "the longest sequence that the student may read"),
    KEY_("rope_theta", FLOAT, rope_theta, "10000", "base of the rotary positions"),
    KEY_("norm_eps", FLOAT, norm_eps, "1e-6", "rms_norm_eps"),
    KEY_("initializer_range", FLOAT, initializer_range, "0.02", "deviation of the first weights"),
    KEY_("tie_word_embeddings", BOOL, tie_word_embeddings, "false", "the head is the embedding's table"),
    KEY_("input_size", INT, input_size, NULL, "features of one item"),
    KEY_("num_labels", INT, num_labels, "none; a limbeck_mlp needs it", "classes that are told apart"),
    KEY_("hidden_sizes", INTS, hidden_sizes, NULL, "widths of the layers between, at most 8"),
    KEY_("input_dropout", FLOAT, input_dropout, "0", "share of features dropped in training"),
    KEY_("hidden_dropout", FLOAT, hidden_dropout, "0", "share of hidden states dropped"),
    {NULL},
};

#define S lb_recipe_dataset
static const struct lb_field dataset_fields[] = {
    PATH_(path, REQ, "the file"),
    {PLACE_(type), .kind = LB_FIELD_ENUM, .flags = DEC, .names = data_types,
     .derived = "jsonl for .jsonl and .ndjson, idx for idx*-ubyte, tokens for .bin, csv for .csv of a "
                "limbeck_mlp, else text",
     .help = "one document a line, one JSON object a line, images, or ids of tokens: nanoGPT's, llm.c's, "
             "Megatron's with its .idx beside it; or a table of features"},
    STRING_(tag, DEC, NULL, "names the part, for routing and for evaluation"),
    {PLACE_(field), .kind = LB_FIELD_STRING, .flags = DEC, .derived = "text",
     .help = "jsonl: the member that holds the text; text: rows may be records as well"},
    {PLACE_(label_field), .kind = LB_FIELD_STRING, .flags = DEC, .derived = "label",
     .help =
         "of classifiers: jsonl's member that holds a class's number or name; csv's column of class numbers"},
    STRING_(weight_field, DEC, NULL, "jsonl's member, csv's column that says how often a row's losses count"),
    PATH_(labels, 0, "idx: the file of the images' labels"),
    {PLACE_(weight), .kind = LB_FIELD_FLOAT, .flags = DEC | LB_FIELD_OPEN, .min = 1e-6, .max = 1e6,
     .derived = "all together",
     .help = "how often its samples come, against the others' weights; each has one, or none has"},
    INT_(max_tokens, DEC, 0, COUNT_MAX, "0", "only the first so many tokens; 0: all"),
    INT_(skip_samples, DEC, 0, COUNT_MAX, "0", "idx, csv: items left out at the start"),
    INT_(max_samples, DEC, 0, COUNT_MAX, "0", "idx, csv: so many items; 0: to the end"),
    INTS_(exclude_labels, DEC, 0, SIZE_MAX_, "idx, csv: items of these classes are left out"),
    {PLACE_(prompt_length), .kind = LB_FIELD_INT, .flags = DEC, .min = 1, .max = LB_MAX_REQUEST_TOKENS,
     .derived = "none", .help = "texts that are written: a row's first so many tokens are its prompt"},
    {NULL},
};
#undef S

#define S lb_recipe_teacher
static const struct lb_field teacher_fields[] = {
    STRING_(name, REQ, NULL, "names it in metrics and messages"),
    PATH_(url, REQ, "http(s)://HOST:PORT, unix:PATH, or local:PATH: a daemon of our own for the run"),
    STRING_(model, 0, NULL, "the model's name there; none: the only one"),
    STRINGS_(replicas, LB_FIELD_PLACES, "further addresses of the same teacher"),
    ENUM_(protocol, LB_FIELD_GROWS, protocols, "oip", "how it is asked"),
    FLOAT_(weight, DEC, 0, 1e6, "1", "its share in the mixture"),
    {PLACE_(anneal), .kind = LB_FIELD_ENUM, .flags = DEC, .names = anneals, .derived = "none",
     .help = "how weight goes to weight_end"},
    {PLACE_(anneal_steps), .kind = LB_FIELD_INT, .flags = DEC, .min = 2, .max = COUNT_MAX, .derived = "all",
     .help = "steps until it is there"},
    {PLACE_(weight_end), .kind = LB_FIELD_FLOAT, .flags = DEC | LB_FIELD_OPEN, .min = 0, .max = 1e6,
     .derived = "weight", .help = "anneal: its share then"},
    STRINGS_(tags, DEC, "the datasets it is asked about, for mixture: route"),
    PATH_(token_file, 0, "a file whose first line is the bearer token"),
    PATH_(head, 0, "vllm: its model's folder, .gguf file or head, for targets: final_hidden"),
    PATH_(tokenizer, 0, "not oip, or with names: its model's folder, tokenizer.json or .gguf file"),
    INT_(max_logprobs, 0, 0, LB_MAX_TOP_K, "0",
         "not oip: ids of a row that it lists; 0: as many as it says or such servers do, vllm 20, openai 5"),
    PAIRS_(names, 0,
           "oip, of a server that is no limbeckd: its tensors for `input_ids`, `logits` and, where it wants "
           "them, `lengths`, `attention_mask`"),
    PAIRS_(extra_inputs, 0, "with names: inputs that are the same in every request, and their values"),
    STRING_(teacher_prompt, DEC, NULL, "a member of records: what it reads in place of their prompts"),
    {NULL},
};
#undef S

#define S lb_layer_pair
static const struct lb_field layer_fields[] = {
    INT_(student, REQ | DEC, -1, 1024, NULL, "the student's layer: 0 the embeddings, -1 the final state"),
    INT_(teacher, REQ | DEC, -1, 1024, NULL, "the teacher's layer"),
    {NULL},
};
#undef S

/* A parameter of losses: a member of struct lb_loss_args. Which loss reads it, its row in the loss table
 * says.
 */
#define ARG_(member, k, low, high, value, text)                                                              \
    {                                                                                                        \
        .key = #member, .offset = offsetof(struct lb_recipe_loss, args.member), .kind = LB_FIELD_##k,        \
        .flags = DEC, .min = low, .max = high, .fallback = value, .help = text                               \
    }
/* One that the loss itself has a default of: not written back where the recipe is silent. */
#define OPEN_(member, f, low, high, value, text)                                                             \
    {                                                                                                        \
        .key = #member, .offset = offsetof(struct lb_recipe_loss, args.member), .kind = LB_FIELD_FLOAT,      \
        .flags = DEC | LB_FIELD_OPEN | (f), .min = low, .max = high, .derived = value, .help = text          \
    }
/* One that is written back where it is not its default only, so that recipes from before it stay the same. */
#define LATER_(member, k, low, high, value, text)                                                            \
    {                                                                                                        \
        .key = #member, .offset = offsetof(struct lb_recipe_loss, args.member), .kind = LB_FIELD_##k,        \
        .flags = DEC, .min = low, .max = high, .derived = value, .help = text                                \
    }
#define S lb_recipe_loss
const struct lb_field lb_recipe_loss_fields[] = {
    {PLACE_(function), .kind = LB_FIELD_STRING, .flags = REQ | DEC, .name_at = loss_name, .help = "the loss"},
    ARG_(weight, FLOAT, 0, 1e6, "1", "its factor"),
    ARG_(temperature, FLOAT, 0, LB_MAX_TEMPERATURE, "0", "of the distributions; 0: the recipe's"),
    {LIST_(layer_mapping), .kind = LB_FIELD_MAPS, .flags = DEC, .fields = layer_fields,
     .entry_bytes = sizeof(struct lb_layer_pair), .names = layer_rules,
     .word_offset = offsetof(struct S, layer_rule), .derived = "final to final",
     .help = "losses on activations: pairs of layers, or by their numbers of layers"},
    ARG_(normalize, BOOL, 0, 0, "false", "hs_mse: divide by the teacher's mean square"),
    STRINGS_(teachers, DEC, "names of the teachers that it learns from; none: all"),
    {PLACE_(on), .kind = LB_FIELD_ENUM, .flags = DEC, .names = loss_texts, .derived = "all",
     .help = "whose text it is on; given: what the student did not write"},
    OPEN_(bce_temp, 0, 0.01, 1e6, "100", "alm: the log-likelihoods of a chunk are divided by it"),
    OPEN_(label_smoothing, 0, 0, 1, "0",
          "cross_entropy: the label's share of 1 less, for all classes evenly"),
    OPEN_(z_loss, 0, 0, 1e6, "0", "cross_entropy: weight of the squared log-sum-exp"),
    OPEN_(alpha, 0, 0, 1e6, "the loss's",
          "skew_kl, skew_reverse_kl: share of the first distribution in the second; abkd: power; dkd: weight "
          "of the label's part; uld_hybrid: weight of the sorted part"),
    OPEN_(beta, 0, 0, 1e6, "the loss's",
          "jsd: from 0, KL(teacher, student), to 1, KL(student, teacher); abkd: power; dkd: weight of the "
          "others' part; dist: weight of the relation between classes"),
    OPEN_(gamma, 0, 0, 1e6, "0", "dist: weight of the relation between the samples of a micro-batch"),
    OPEN_(clamp, 0, 1e-6, 1e6, "none",
          "losses on logits: the most that one row counts, without a gradient there"),
    {PLACE_(anneal), .kind = LB_FIELD_ENUM, .flags = DEC, .names = anneals, .derived = "none",
     .help = "how weight and temperature go to weight_end and temperature_end"},
    {PLACE_(anneal_steps), .kind = LB_FIELD_INT, .flags = DEC, .min = 2, .max = COUNT_MAX, .derived = "all",
     .help = "steps until they are there"},
    {PLACE_(weight_end), .kind = LB_FIELD_FLOAT, .flags = DEC | LB_FIELD_OPEN, .min = 0, .max = 1e6,
     .derived = "weight", .help = "anneal: its factor then"},
    {PLACE_(temperature_end), .kind = LB_FIELD_FLOAT, .flags = DEC | LB_FIELD_OPEN, .min = LB_MIN_TEMPERATURE,
     .max = LB_MAX_TEMPERATURE, .derived = "temperature", .help = "anneal: its temperature then"},
    OPEN_(contrast_temp, MEANT, 0.001, 1e3, "0.07",
          "hs_contrastive, embedding_contrastive: cosines are divided by it"),
    LATER_(first_token, BOOL, 0, 0, "false", "pkd: each text's first position only, an encoder's [CLS]"),
    LATER_(relation_heads, INT, 1, 4096, "the student's heads", "minilm_qq, _kk, _vv: parts of a row"),
    {NULL},
};
#undef S

/* Not in the fingerprint: places, what only waits or watches, and on_lost_teacher, so that a run whose
 * teacher died can go on without it, and allow_other_kernels, likewise for one whose machine changed. What
 * evaluations are compared by is not either: it says where a run ends and which of its states is exported. */
#define S lb_recipe
const struct lb_field lb_recipe_fields[] = {
    {PLACE_(student), .kind = LB_FIELD_STUDENT, .flags = REQ | DEC, .help = "what is trained"},
    {PLACE_(tokenizer), .kind = LB_FIELD_PATH, .derived = "student.model's",
     .help = "a tokenizer.json, a folder that holds one, or a .gguf file; none for images"},
    {PLACE_(add_bos_token), .kind = LB_FIELD_ENUM, .flags = DEC, .names = add_bos,
     .derived = "as the tokenizer says", .help = "whether each text, and each row, begins with bos_token"},
    {PLACE_(chat_template), .kind = LB_FIELD_PATH, .derived = "the tokenizer's",
     .help = "a Jinja file that writes rows with messages"},
    {PLACE_(completion_only_loss), .kind = LB_FIELD_ENUM, .flags = DEC, .names = completion_only,
     .derived = "true for rows with a prompt", .help = "only completions count, of messages the assistant's"},
    {PLACE_(assistant_only_loss), .kind = LB_FIELD_BOOL, .flags = DEC, .derived = "false",
     .help = "only the assistant's tokens count"},
    {PLACE_(whole_texts), .kind = LB_FIELD_BOOL, .flags = DEC, .derived = "false",
     .help = "each text is a row of its own, cut at max_length, as encoders read them; else they are strung "
             "together"},
    MAPS_(datasets, REQ | DEC, lb_recipe_dataset, dataset_fields, "what is trained on"),
    MAPS_(eval_datasets, 0, lb_recipe_dataset, dataset_fields, "held-out data, with the keys of datasets"),
    MAPS_(teachers, DEC, lb_recipe_teacher, teacher_fields, "who is asked"),
    MAPS_(loss_functions, REQ | DEC, lb_recipe_loss, lb_recipe_loss_fields,
          "what is minimised: the weighted sum"),
    {PLACE_(mixture), .kind = LB_FIELD_STRING, .flags = DEC | LB_FIELD_BARE, .fallback = "mean_probs",
     .name_at = mixture_name, .help = "how several teachers become one target or loss"},
    {PLACE_(mixture_by), .kind = LB_FIELD_ENUM, .flags = DEC | MEANT, .names = mixture_by, .derived = "ce",
     .help = "dynamic, select: what says how sure a teacher is"},
    {PLACE_(mixture_per), .kind = LB_FIELD_ENUM, .flags = DEC | MEANT, .names = mixture_per,
     .derived = "sequence", .help = "what has weights of its own; batch: random's micro-batches"},
    {PLACE_(mixture_states), .kind = LB_FIELD_ENUM, .flags = DEC | MEANT, .names = mixture_states,
     .derived = "teacher",
     .help = "ca_mkd: from whose final states the labels are predicted, where such states are compared"},
    {PLACE_(mixture_temperature), .kind = LB_FIELD_FLOAT, .flags = DEC | MEANT, .min = 1e-6, .max = 1e6,
     .derived = "1", .help = "dynamic: of the softmax over teachers"},
    {PLACE_(targets), .kind = LB_FIELD_ENUM, .flags = DEC, .names = lanes,
     .derived = "final_hidden; logits for images", .help = "what teachers send for losses on distributions"},
    INT_(loss_top_k, DEC, 1, LB_MAX_TOP_K, "64", "topk: so many ids a position"),
    BOOL_(loss_add_tail, DEC, "true", "topk: the rest is one bucket, instead of renormalising"),
    {PLACE_(sample_count), .kind = LB_FIELD_INT, .flags = DEC, .min = 1, .max = LB_MAX_SAMPLES,
     .derived = "50 for targets: samples", .help = "samples: so many draws a position"},
    {PLACE_(sample_temperature), .kind = LB_FIELD_FLOAT, .flags = DEC, .min = LB_MIN_TEMPERATURE,
     .max = LB_MAX_TEMPERATURE, .derived = "temperature",
     .help = "samples: of what is drawn from; draws count by what they are likelier or less so"},
    FLOAT_(temperature, DEC, LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE, "1",
           "of teacher's and student's distributions"),
    ENUM_(on_lost_teacher, 0, lost, "wait", "what a teacher that stays away means"),
    FLOAT_(teacher_timeout, 0, 0.1, 86400, "60", "seconds an answer may take before it is asked again"),
    FLOAT_(give_up_after, 0, 0, 1e9, "120",
           "seconds a teacher may be lost (but for on_lost_teacher: wait) or answer wrongly before it is "
           "given up; 0: for ever"),
    BOOL_(allow_other_kernels, 0, "false",
          "teachers, replicas and the machine of a resumed run may compute other bits; the run can't be "
          "repeated then"),
    INT_(prefetch, 0, 1, 1024, "4", "steps that are asked ahead"),
    BOOL_(fp16_targets, DEC, "true", "numbers travel and are cached as FP16, else FP32"),
    PATH_(cache_dir, 0, "the folder of cached answers; none: no cache"),
    INT_(cache_max_bytes, 0, 1048576, COUNT_MAX, "8589934592", "the cache's largest size"),
    FLOAT_(learning_rate, DEC, 0, 100, "2e-4", "the highest"),
    FLOAT_(min_lr_ratio, DEC, 0, 1, "0", "the lowest, as a share of learning_rate"),
    FLOAT_(warmup_ratio, DEC, 0, 1, "0", "warm-up as a share of all steps"),
    FLOAT_(weight_decay, DEC, 0, 10, "0", "of all weights but biases and norms"),
    FLOAT_(adam_beta1, DEC, 0, 0.999999, "0.9", "of AdamW, and of Lion"),
    FLOAT_(adam_beta2, DEC, 0, 0.999999, "0.999", "of AdamW, and of Lion, whose paper has 0.99"),
    FLOAT_(adam_epsilon, DEC, 1e-20, 1, "1e-8", "of AdamW"),
    FLOAT_(max_grad_norm, DEC, 0, 1e9, "1", "gradients are clipped to it; 0: not clipped"),
    ENUM_(lr_scheduler_type, DEC, schedules, "linear", "the learning rate's way down"),
    INT_(warmup_steps, DEC, 0, COUNT_MAX, "0", "steps of warm-up"),
    INT_(max_steps, DEC, 0, COUNT_MAX, "0", "steps of the run; 0: num_train_epochs decides"),
    INT_(per_device_train_batch_size, DEC, 1, LB_MAX_SEQUENCES, "8", "sequences of a micro-batch"),
    INT_(gradient_accumulation_steps, DEC, 1, 65536, "1", "micro-batches of a step"),
    INT_(max_length, DEC, 1, LB_MAX_REQUEST_TOKENS, "1024", "positions of a sequence"),
    FLOAT_(num_train_epochs, DEC, 0, 1e6, "3", "passes over the data where max_steps is 0"),
    INT_(save_steps, 0, 0, COUNT_MAX, "200", "steps between checkpoints; 0: only at the end"),
    INT_(save_total_limit, 0, 1, 10000, "2", "checkpoints that are kept"),
    INT_(eval_steps, 0, 0, COUNT_MAX, "0", "steps between evaluations; 0: only at the end"),
    INT_(logging_steps, 0, 1, COUNT_MAX, "10", "steps between lines of metrics.jsonl"),
    INT_(seed, DEC, 0, COUNT_MAX, "42", "of first weights, order and dropout"),
    INT_(threads, 0, 0, 4096, "0", "threads that compute; 0: as many as cores; results do not depend on it"),
    {PLACE_(optim), .kind = LB_FIELD_ENUM, .flags = DEC | MEANT, .names = optims, .derived = "adamw_torch",
     .help = "the optimizer; adamw_torch_fused is the same"},
    STRING_(optim_args, DEC, NULL,
            "sgd: momentum=0.9, and with it nesterov=true; muon: momentum=0.95,nesterov=true, which it has "
            "without"),
    PAIRS_(lr_scheduler_kwargs, DEC,
           "cosine: num_cycles; cosine_with_min_lr: min_lr or min_lr_rate, num_cycles; warmup_stable_decay: "
           "num_decay_steps, num_stable_steps, warmup_type, decay_type, min_lr_ratio, num_cycles"),
    {PLACE_(warmup_max_steps), .kind = LB_FIELD_INT, .flags = DEC, .min = 1, .max = COUNT_MAX,
     .derived = "any", .help = "warmup_ratio: at most so many steps"},
    {PLACE_(warmup_from_zero), .kind = LB_FIELD_BOOL, .flags = DEC, .derived = "false",
     .help = "the first step's rate is 0, as transformers numbers steps; else warm-up is one step ahead"},
    {PLACE_(disable_dropout), .kind = LB_FIELD_ENUM, .flags = DEC, .names = yes_no,
     .derived = "true for a student that exists", .help = "no dropout, whatever the student's config says"},
    {PLACE_(use_peft), .kind = LB_FIELD_BOOL, .flags = DEC, .derived = "false",
     .help = "only adapters learn (LoRA), of a student that exists"},
    {PLACE_(lora_r), .kind = LB_FIELD_INT, .flags = DEC, .min = 1, .max = 4096, .derived = "16",
     .help = "use_peft: their rank"},
    {PLACE_(lora_alpha), .kind = LB_FIELD_FLOAT, .flags = DEC, .min = 1e-6, .max = 1e6, .derived = "32",
     .help = "use_peft: they count alpha / r times"},
    STRINGS_(lora_target_modules, DEC,
             "use_peft: modules by the end of their names, as q_proj; none, or all-linear: all linear ones "
             "but the head"),
    STRINGS_(
        frozen_parameters, DEC,
        "names of the student's parameters that do not learn, with * and ? and [...]: model.layers.[0-3].*"),
    {PLACE_(ema_decay), .kind = LB_FIELD_FLOAT, .flags = DEC, .max = 0.9999999, .derived = "none",
     .help = "an exponential moving average of the weights, which keeps this share of itself at each step"},
    {PLACE_(ema_for), .kind = LB_FIELD_ENUM, .names = ema_uses, .derived = "both",
     .help = "what the average is used for, instead of the weights"},
    {PLACE_(metric_for_best_model), .kind = LB_FIELD_ENUM, .names = metrics, .derived = "eval_loss",
     .help = "what evaluations are compared by"},
    {PLACE_(greater_is_better), .kind = LB_FIELD_ENUM, .names = yes_no, .derived = "as the metric is",
     .help = "true for accuracy, false for all others"},
    {PLACE_(load_best_model_at_end), .kind = LB_FIELD_BOOL, .derived = "false",
     .help = "the student is that of the best evaluation, whose checkpoint is kept"},
    {PLACE_(early_stopping_patience), .kind = LB_FIELD_INT, .min = 1, .max = COUNT_MAX, .derived = "none",
     .help = "the run ends after so many evaluations that were no better than the best"},
    {PLACE_(early_stopping_threshold), .kind = LB_FIELD_FLOAT, .max = 1e9, .derived = "0",
     .help = "by how much more than this one must be better, for early_stopping_patience"},
    PATH_(output_dir, REQ, "the run folder"),
    {PLACE_(lmbda), .kind = LB_FIELD_FLOAT, .flags = DEC, .min = 0, .max = 1, .derived = "0",
     .help = "share of micro-batches in which the student's own completions stand for the data's"},
    {PLACE_(off_policy_steps), .kind = LB_FIELD_INT, .flags = DEC, .min = 1, .max = COUNT_MAX, .derived = "0",
     .help = "lmbda: steps at the beginning in which it is 0"},
    {PLACE_(lmbda_ramp_steps), .kind = LB_FIELD_INT, .flags = DEC, .min = 1, .max = COUNT_MAX, .derived = "0",
     .help = "lmbda: steps behind these in which it rises to what it is"},
    {PLACE_(max_new_tokens), .kind = LB_FIELD_INT, .flags = DEC | MEANT, .min = 1,
     .max = LB_MAX_REQUEST_TOKENS, .derived = "128",
     .help = "of a text that is written, at most, within max_length"},
    {PLACE_(generation_temperature), .kind = LB_FIELD_FLOAT, .flags = DEC | MEANT | LB_FIELD_OPEN, .min = 0,
     .max = LB_MAX_TEMPERATURE, .derived = "1", .help = "of what is drawn for it; 0: the likeliest"},
    {PLACE_(top_p), .kind = LB_FIELD_FLOAT, .flags = DEC | MEANT | LB_FIELD_OPEN, .min = 1e-6, .max = 1,
     .derived = "1", .help = "it is drawn among the likeliest that hold so much"},
    {PLACE_(seq_kd), .kind = LB_FIELD_BOOL, .flags = DEC, .derived = "false",
     .help = "a teacher's own completions stand for the data's, where the student does not write"},
    {PLACE_(seq_kd_ratio), .kind = LB_FIELD_FLOAT, .flags = DEC | MEANT | LB_FIELD_OPEN, .min = 0, .max = 1,
     .derived = "1", .help = "seq_kd: in so many of these micro-batches"},
    BOOL_(log_completions, 0, "false",
          "lmbda: each text that the student writes goes into completions.jsonl"),
    {PLACE_(eval_agreement), .kind = LB_FIELD_BOOL, .derived = "false",
     .help = "evaluations ask the teachers about the held-out data too, and compare them with the student"},
    {NULL},
};
#undef S

const char *lb_recipe_schedule_name(enum lb_schedule type) {
    const struct lb_field_name *name = schedules;
    while (name->name != NULL && name->value != (int)type) {
        name++;
    }
    return name->name != NULL ? name->name : "";
}

const char *lb_field_word(const struct lb_field *f, const char *base) {
    const struct lb_field_name *name = f->names;
    while (f->word_offset > 0 && name->name != NULL &&
           name->value != *(const int *)(const void *)(base + f->word_offset)) {
        name++;
    }
    return f->word_offset > 0 ? name->name : NULL;
}

bool lb_field_at_default(const struct lb_field *f, const char *base) {
    const void *at = base + f->offset;
    switch (f->kind) {
    case LB_FIELD_INT:
        return *(const int64_t *)at == (f->fallback != NULL ? strtoll(f->fallback, NULL, 10) : 0);
    case LB_FIELD_FLOAT:
        if ((f->flags & LB_FIELD_OPEN) != 0) {
            return isnan(*(const double *)at);
        }
        return *(const double *)at == (f->fallback != NULL ? strtod(f->fallback, NULL) : 0);
    case LB_FIELD_BOOL:
        return *(const bool *)at == (f->fallback != NULL && strcmp(f->fallback, "true") == 0);
    case LB_FIELD_STRING:
    case LB_FIELD_PATH: {
        const char *text = *(const char *const *)at;
        return text == NULL || (f->fallback != NULL && strcmp(text, f->fallback) == 0);
    }
    case LB_FIELD_INTS:
    case LB_FIELD_STRINGS:
    case LB_FIELD_MAPS:
    case LB_FIELD_PAIRS:
        return *(const unsigned *)(const void *)(base + f->count_offset) == 0 &&
               lb_field_word(f, base) == NULL;
    case LB_FIELD_ENUM:
    case LB_FIELD_STUDENT:
        break;
    }
    return false;
}
