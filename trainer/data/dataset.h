/* Training and evaluation data: texts as rows of ids, images as rows of features, in a fixed order that a
 * seed decides. */
#ifndef LB_DATA_DATASET_H
#define LB_DATA_DATASET_H

#include "common/base/status.h"
#include "common/model/model.h"
#include "common/text/tokenizer.h"
#include "trainer/recipe/recipe.h"
#include "trainer/wire/sample.h"

#include <signal.h>
#include <stdint.h>

struct lb_dataset;

/* Text: each line is encoded and ended by eos, lines are concatenated per dataset entry and cut into rows of
 * max_length + 1 ids that overlap by one (every id but the first is a label once); a last short row is
 * dropped in training, kept in evaluation. Where texts begin with something (bos: the tokenizer's template
 * says it, or the recipe's add_bos_token), each line does, and each row does instead of overlapping; it never
 * counts as a label. JSON rows that are no texts (chat.h) are a sample each, written by the chat template,
 * cut to max_length; which of their tokens count, completion_only_loss and assistant_only_loss say. Reports
 * through detail: missing files, no eos, invalid UTF-8 with line, a JSON line without the field, IDX sizes
 * that do not agree. num_labels > 0: for a classifier of texts with so many classes: each text is a row of
 * its own, and a JSON row's label is its class, or its name (lb_dataset_name_labels). LB_E_CANCELLED soon
 * after *stop (may be NULL) became other than 0. Token shards (shards.c) are streams of ids, cut as texts
 * without a beginning are; nothing is put before their rows. Memory does not grow with texts and records:
 * their ids lie in files without names in the run's folder where there is one, else in $TMPDIR or /var/tmp.
 */
LB_NODISCARD enum lb_status lb_dataset_open(const struct lb_recipe *recipe,
                                            const struct lb_recipe_dataset *entries, unsigned n_entries,
                                            bool keep_short, const struct lb_tokenizer *tokenizer,
                                            int64_t num_labels, const volatile sig_atomic_t *stop,
                                            struct lb_dataset **out, struct lb_detail *detail);
void lb_dataset_destroy(struct lb_dataset *data);

/* Labels that are names become the classes of these names. LB_E_MISMATCH: there is no such class. name
 * ("datasets") stands in the error. */
LB_NODISCARD enum lb_status lb_dataset_name_labels(struct lb_dataset *data, const struct lb_labels *labels,
                                                   const char *name, struct lb_detail *detail);
/* Texts without a label, where they may have one. */
int64_t lb_dataset_unlabelled(const struct lb_dataset *data);

/* Whether a model of that config can read them: the width of features, labels within the classes. name
 * ("datasets") stands in the error. */
LB_NODISCARD enum lb_status lb_dataset_fits(const struct lb_dataset *data, const struct lb_config *config,
                                            const char *name, struct lb_detail *detail);

/* Whether tables in other have the columns that tables in data ("datasets") have, in their order; name stands
 * for other in the error. */
LB_NODISCARD enum lb_status lb_dataset_same_columns(const struct lb_dataset *data,
                                                    const struct lb_dataset *other, const char *name,
                                                    struct lb_detail *detail);

int64_t lb_dataset_count(const struct lb_dataset *data);
/* Whether all rows have weight 0 (weight_field). */
bool lb_dataset_weightless(const struct lb_dataset *data);
/* Text bytes behind all the samples' labels, for bits per byte; 0 for images. Per tag: tag >= 0; all: -1. */
int64_t lb_dataset_bytes(const struct lb_dataset *data, int tag);
/* Sample i. What it points to is good until as many further samples were got as lb_dataset_hold said (8); of
 * features as long as data. One thread at a time. LB_E_IO: what memory does not hold cannot be read any more,
 * or a shard was written to. */
LB_NODISCARD enum lb_status lb_dataset_get(const struct lb_dataset *data, int64_t i, struct lb_sample *out,
                                           struct lb_detail *detail);
/* n samples are wanted at the same time. LB_E_NOMEM. Not while samples are in use. */
LB_NODISCARD enum lb_status lb_dataset_hold(const struct lb_dataset *data, int64_t n,
                                            struct lb_detail *detail);
int lb_dataset_tags(const struct lb_dataset *data);
const char *lb_dataset_tag(const struct lb_dataset *data, int tag);
/* Width of features, 0 for text. */
int64_t lb_dataset_features(const struct lb_dataset *data);
/* SHA-256 (hex) of the chat template that records were written by; "" when none was needed. */
const char *lb_dataset_chat_hash(const struct lb_dataset *data);
/* Records that were cut to max_length, and those left out because no token of them counts within it. */
int64_t lb_dataset_shortened(const struct lb_dataset *data);
int64_t lb_dataset_dropped(const struct lb_dataset *data);
/* Samples whose prompt is known (lb_writes says that it is wanted) and shorter than the recipe's max_length,
 * so that a text can be written behind it. */
int64_t lb_dataset_prompts(const struct lb_dataset *data);
/* SHA-256 (hex) over all samples: a resumed run must see the same data. */
const char *lb_dataset_fingerprint(const struct lb_dataset *data);

/* The indices of the samples of micro-batch number m (counting from 0 over the whole run): epoch e is a
 * Fisher-Yates shuffle with stream (seed, e); a batch may span two epochs, so every batch has size samples.
 * out [size]. A pure function: resuming needs no state. */
struct lb_order;
struct lb_order *lb_order_create(int64_t count, uint64_t seed);
/* Samples first .. first + count - 1, and how often they come: as their weight is to the sum of all. */
struct lb_order_part {
    int64_t first, count;
    double weight; /* > 0 */
};
/* Of several parts each has its own epochs, and its share of the samples: of each 4096 exactly, but for
 * rounding, in an order that stream (seed, block) decides; of more than 64 parts of as many more as the
 * square of their number is. listed: shuffles are listed, 8 bytes a sample; else computed (a Feistel
 * network), which takes no memory. NULL: a part is empty, there are more than LB_MAX_WEIGHTED_SETS, or memory
 * is out. */
struct lb_order *lb_order_create_parts(const struct lb_order_part *parts, unsigned n, bool listed,
                                       uint64_t seed);
/* Of the data: by the weights of its entries, else all together; listed where the rows are. */
struct lb_order *lb_dataset_order(const struct lb_dataset *data, uint64_t seed);
void lb_order_destroy(struct lb_order *order);
LB_NODISCARD enum lb_status lb_order_batch(struct lb_order *order, int64_t m, int64_t size, int64_t *out);

#endif
