/* Inside of struct lb_dataset, shared by the files that fill it. */
#ifndef LB_DATA_PARTS_H
#define LB_DATA_PARTS_H

#include "common/base/sha256.h"
#include "trainer/data/chat.h"
#include "trainer/data/dataset.h"

#include <stdbool.h>
#include <time.h>

#define LB_MAX_RECORDS ((size_t)1 << 40) /* bytes of conversations that are kept */
#define LB_MAX_COLUMN 256                /* bytes of a field of a table: a number or a column's name */

/* A row of text: inputs ids[start .. start + n - 1]. */
struct lb_text_row {
    int64_t start, n;
    int tag;
    bool within;               /* it begins within a text */
    size_t record, record_len; /* its conversation in records; 0: none */
    int32_t label;  /* of the whole text, where there are num_labels; LB_LABEL_NONE: nobody has said it */
    int32_t prompt; /* ids of its prompt; 0: none, or nobody wants to know */
    int32_t teacher_prompt_n; /* ids of the prompt that teachers read, in teacher_prompts; 0: none */
    size_t teacher_prompt;
};
#define LB_LABEL_NONE (-1)

/* A file of ids (shards.c). Its rows are not kept: row i reads ids i * max_length .. */
enum lb_shard_ids { LB_SHARD_U16, LB_SHARD_U32 };
struct lb_shard {
    char *path;
    int fd; /* -1: not open */
    enum lb_shard_ids kind;
    int64_t size; /* bytes, and when they were written: as it was opened */
    struct timespec written;
    int64_t begin, tokens; /* the first id's byte; how many ids there are */
    int32_t vocab_size;    /* ids are below it */
    int64_t rows, labels, max_length;
    int64_t prompt; /* as in struct lb_sample */
    int tag;
};

/* Room for rows of text that were asked for lately. */
struct lb_held_row {
    int32_t *ids;    /* [cap] */
    uint8_t *counts; /* [cap] */
    int64_t cap;
    void *record, *teacher_prompt;
};
struct lb_held {
    struct lb_held_row *rows; /* [n] */
    int64_t n, next;
};

/* spill.c: bytes that are appended, and read at any place. Starts as zeros. */
struct lb_spill {
    const char
        *folder; /* borrowed: where the file is that it needs once there is much of it; NULL: /var/tmp */
    bool open;   /* there is such a file: fd */
    int fd;
    int64_t in_file; /* bytes there */
    uint8_t *last;   /* [n] those behind them, with room for cap */
    size_t n, cap;
};
LB_NODISCARD enum lb_status lb_spill_append(struct lb_spill *spill, const void *bytes, size_t len,
                                            struct lb_detail *detail);
/* Bytes at .. at + len - 1, which are there. LB_E_IO. */
LB_NODISCARD enum lb_status lb_spill_read(const struct lb_spill *spill, int64_t at, void *to, size_t len,
                                          struct lb_detail *detail);
int64_t lb_spill_size(const struct lb_spill *spill);
/* Only the first size bytes stay. */
void lb_spill_cut(struct lb_spill *spill, int64_t size);
void lb_spill_finish(struct lb_spill *spill);

struct lb_image_row {
    int32_t label;
    int tag;
};

struct lb_dataset {
    bool images;
    int64_t count;
    /* text: what memory does not hold */
    char *folder;                    /* of spills */
    int64_t max_length;              /* positions of a row, at most */
    struct lb_spill ids;             /* [int32_t] of all rows; those that do not count as their complements */
    struct lb_spill rows;            /* [struct lb_text_row] */
    struct lb_spill teacher_prompts; /* [int32_t] */
    struct lb_spill records;         /* conversations as JSON, one after the other, where they are kept */
    bool any_counts;                 /* some rows have ids that do not count */
    int64_t prompts, unlabelled;     /* rows, see lb_dataset_prompts and lb_dataset_unlabelled */
    int32_t *class_of_name;          /* labels are names' numbers, of these classes; NULL: classes */
    struct lb_shard *shards;         /* [n_shards]; their rows come behind all others */
    int n_shards;
    int64_t shard_rows;
    struct lb_held *held; /* NULL: there are no rows of text */
    /* images */
    int64_t cap;
    float *features; /* [cap, n_features] */
    struct lb_image_row *labels;
    int64_t n_features;
    char (*columns)[LB_MAX_COLUMN]; /* [n_features] what tables call them; NULL: there is no table */
    double *weights;                /* [n_weights] of the first rows; others count once. NULL: all do */
    int64_t n_weights, weights_cap;
    struct lb_order_part *parts; /* [n_parts], of the recipe's entries with rows */
    unsigned n_parts;
    bool weighted;
    char **tags;
    int64_t *tag_bytes; /* [n_tags] */
    int n_tags;
    int64_t bytes;
    int64_t shortened, dropped; /* records, see lb_dataset_shortened */
    int64_t num_labels;         /* of the classifier of texts that reads them; 0: none does */
    bool any_label;
    char *
        *label_names; /* [n_label_names] that labels are, in the order that they were met in; NULL: numbers */
    int64_t n_label_names;
    char chat_hash[LB_SHA256_HEX];
    struct lb_sha256 *hash; /* while open fills */
    char fingerprint[LB_SHA256_HEX];
};

/* The index of a tag, added when new; -1 for NULL, -2 when out of memory. */
int lb_dataset_take_tag(struct lb_dataset *data, const char *tag);

/* text.c: token bytes as text: one table for all entries. */
struct lb_text_source {
    const struct lb_tokenizer *tokenizer;
    uint16_t *token_bytes; /* [vocabulary] bytes of text that a token stands for; eos: the line's end */
    int32_t vocab_size, eos;
    struct lb_ids begin, end;          /* what each text begins with, and ends with: eos last */
    const volatile sig_atomic_t *stop; /* may be NULL */
    char *chat_template;               /* a file; NULL: the tokenizer's */
    struct lb_chat *chat;              /* NULL until a row needs one */
    enum lb_completion_only completion_only;
    bool assistant_only;
    bool whole;   /* each text is a row of its own, as encoders read it: ended as the template says */
    bool keeps;   /* conversations are kept: a teacher may read them written by its own template */
    bool prompts; /* it is to be known of each row what its prompt is */
    const char *teacher_prompt; /* the member of records that teachers read in its place; NULL: none */
    int64_t num_labels;         /* > 0: each has a label, one of so many */
};

/* labels.c: labels of rows of JSON, read by one thread, in their order. */
struct lb_row_labels {
    struct lb_ids of;    /* a class, LB_LABEL_NONE, or below that where its name begins */
    struct lb_buf names; /* each ended by a NUL */
};
void lb_row_labels_init(struct lb_row_labels *labels);
void lb_row_labels_clear(struct lb_row_labels *labels);
void lb_row_labels_finish(struct lb_row_labels *labels);
LB_NODISCARD enum lb_status lb_row_labels_add(struct lb_row_labels *labels, const json_t *row,
                                              const char *key, int64_t num_labels, struct lb_detail *detail);
/* Appends them to out, names as their number among data's. */
LB_NODISCARD enum lb_status lb_dataset_take_labels(struct lb_dataset *data, const struct lb_row_labels *from,
                                                   struct lb_ids *out, struct lb_detail *detail);
void lb_dataset_forget_names(struct lb_dataset *data);

/* weights.c: what a weight can be. */
LB_NODISCARD enum lb_status lb_weight_check(double weight, struct lb_detail *detail);
/* Appends the weight [double] that a row of JSON has. */
LB_NODISCARD enum lb_status lb_row_weight(const json_t *row, const char *key, struct lb_buf *weights,
                                          struct lb_detail *detail);
/* The i-th of these; 1: there are none. */
double lb_weight_at(const struct lb_buf *weights, size_t i);
/* Row number row counts so often; rows come in their order. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_dataset_weigh(struct lb_dataset *data, int64_t row, double weight);

LB_NODISCARD enum lb_status lb_text_source_init(struct lb_text_source *source,
                                                const struct lb_tokenizer *tokenizer, bool whole,
                                                struct lb_detail *detail);
/* Opens source->chat unless it is there. */
LB_NODISCARD enum lb_status lb_text_source_chat(struct lb_text_source *source, struct lb_detail *detail);
void lb_text_source_finish(struct lb_text_source *source);
/* path is resolved; rows of max_length positions are added to data. */
LB_NODISCARD enum lb_status lb_dataset_add_text(struct lb_dataset *data, struct lb_text_source *source,
                                                const struct lb_recipe_dataset *entry, const char *path,
                                                int64_t max_length, bool keep_short,
                                                struct lb_detail *detail);
/* records.c: appends the ids of a row that is no text, those that do not count as their complement. prompt:
 * how many of them are its prompt, where source wants to know, else 0. theirs: how many ids of the prompt
 * that teachers read were appended to teacher_prompts. Where there is such a one, nothing before the
 * completion counts. */
struct lb_record_prompts {
    int64_t prompt, theirs;
    struct lb_ids *teacher_prompts;
};
LB_NODISCARD enum lb_status lb_record_encode(const struct lb_text_source *source, const json_t *row,
                                             enum lb_row_form form, struct lb_ids *ids,
                                             struct lb_record_prompts *prompts, struct lb_detail *detail);
/* A file's rows while it is read: what is not cut yet, and what the lines of a block brought. */
struct lb_text_stream {
    struct lb_dataset *data;
    const char *path;
    enum lb_row_form form; /* of all its rows, as its first has it */
    int64_t start;         /* the first id of the file among data's */
    struct lb_ids ids;
    struct lb_ids lens;    /* ids of each record or whole text */
    struct lb_ids prompts; /* as in text.c's struct part */
    size_t teacher_prompt; /* where that of the next record is among data's */
    struct lb_buf records; /* as in struct part */
    struct lb_ids record_lens;
    struct lb_ids classes; /* of each text, where it has a label */
    struct lb_buf weights; /* [double] of each text or record, where they bring them */
    int64_t max_length;
    int64_t labels; /* that the rows of lens have, each cut to max_length, from the file's beginning on */
    int64_t encoded, others; /* ids so far; of these, such as begin texts */
    int64_t left;            /* labels that rows may still have */
    int64_t bytes;           /* of text behind those that they have */
};

/* How a stream becomes rows. */
struct lb_text_cut {
    const char *path;
    int64_t max_length, max_tokens; /* 0: all */
    bool keep_short;
    int tag;
    int32_t prompt; /* ids of each text's row */
};

/* cut.c: makes rows of what the stream holds; end: nothing follows. What waits for more stays in it. */
LB_NODISCARD enum lb_status lb_cut(struct lb_dataset *data, const struct lb_text_source *source,
                                   struct lb_text_stream *stream, const struct lb_text_cut *cut, bool end,
                                   struct lb_detail *detail);
/* How many of a record's len ids its row has, of at most `most` labels; 0: none of them counts. */
int64_t lb_record_kept(const int32_t *ids, int64_t len, int64_t most);
/* How many of the len ids of a text that is a row stay; 0: there is nothing between what begins and ends it.
 */
int64_t lb_whole_kept(const struct lb_text_source *source, int64_t len, int64_t max_length);

/* rows.c: appends ids [n], and a row of ids that are there. */
LB_NODISCARD enum lb_status lb_text_add_ids(struct lb_dataset *data, const int32_t *ids, int64_t n,
                                            struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_text_add_row(struct lb_dataset *data, const struct lb_text_row *row,
                                            struct lb_detail *detail);
/* How many ids there are. */
int64_t lb_text_ids(const struct lb_dataset *data);
/* Row i of texts. */
LB_NODISCARD enum lb_status lb_text_row_at(const struct lb_dataset *data, int64_t i, struct lb_text_row *out,
                                           struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_text_row_read(const struct lb_dataset *data, int64_t i, struct lb_sample *out,
                                             struct lb_detail *detail);
/* Into the fingerprint: ids from number `first` on; rows, their tags and labels, and teachers' prompts. */
LB_NODISCARD enum lb_status lb_text_hash_ids(struct lb_dataset *data, int64_t first,
                                             struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_text_hash_rows(struct lb_dataset *data, struct lb_detail *detail);
/* Room for a few rows, where there is none. */
LB_NODISCARD enum lb_status lb_dataset_hold_any(struct lb_dataset *data, struct lb_detail *detail);
/* The place of the next row that is read, with room for so many ids; NULL: out of memory. */
struct lb_held_row *lb_dataset_next_held(const struct lb_dataset *data, int64_t n_ids,
                                         struct lb_detail *detail);
void lb_text_rows_finish(struct lb_dataset *data);
/* shards.c: path is resolved. */
LB_NODISCARD enum lb_status lb_dataset_add_shard(struct lb_dataset *data, const struct lb_text_source *source,
                                                 const struct lb_recipe_dataset *entry, const char *path,
                                                 int64_t max_length, bool keep_short,
                                                 struct lb_detail *detail);
void lb_shards_close(struct lb_dataset *data);
/* Row i of those of the shards. */
LB_NODISCARD enum lb_status lb_shard_row(const struct lb_dataset *data, int64_t i, struct lb_sample *out,
                                         struct lb_detail *detail);
/* idx.c: room for so many more rows of features. */
LB_NODISCARD enum lb_status lb_dataset_reserve_items(struct lb_dataset *data, int64_t more,
                                                     struct lb_detail *detail);
/* idx.c: whether items of that class are left out. */
bool lb_dataset_excludes(const struct lb_recipe_dataset *entry, int64_t label);
/* csv.c: path is resolved; num_labels 0: not known, not checked. */
LB_NODISCARD enum lb_status lb_dataset_add_csv(struct lb_dataset *data, const struct lb_recipe_dataset *entry,
                                               const char *path, int64_t num_labels,
                                               struct lb_detail *detail);
/* idx.c: num_labels 0: not known, not checked. */
LB_NODISCARD enum lb_status lb_dataset_add_idx(struct lb_dataset *data, const struct lb_recipe_dataset *entry,
                                               const char *path, const char *labels_path, int64_t num_labels,
                                               struct lb_detail *detail);

#endif
