/* Teachers as the training loop sees them: questions go in ahead of time, answers come out in order.
 *
 * Between the two stand the cache (a question answered before costs no request), the pool of replicas,
 * retries and the check of digests. Whatever happens in between, the answers to the same questions are the
 * same bytes.
 */
#ifndef LB_TEACHERS_TEACHERS_H
#define LB_TEACHERS_TEACHERS_H

#include "common/base/buf.h"
#include "common/text/tokenizer.h"
#include "common/text/trim.h"
#include "trainer/recipe/choices.h"
#include "trainer/wire/dialect.h"

#include <signal.h>
#include <stdbool.h>

struct lb_recipe;
struct lb_teachers;

/* Counters since create, for the progress line and metrics. */
struct lb_teachers_stats {
    uint64_t requests, retries, failures;
    uint64_t questions, cache_hits;
    bool cached; /* there is a cache to look into */
    uint64_t bytes_sent, bytes_received, tokens_answered;
    double wait_seconds; /* the training loop waited for answers */
};

/* A teacher and where it is found. */
struct lb_teacher_address {
    const char *name;
    const char *url;   /* http(s)://host:port, unix:PATH, or local:PATH (resolved): a daemon of our own */
    const char *model; /* its name on that server; NULL: the only one there */
    const char *const *replicas; /* [n_replicas] further URLs of the same teacher */
    unsigned n_replicas;
    const char *token_file; /* NULL: none */
    enum lb_protocol protocol;
    /* Of servers that serve them not: paths (resolved) of the model's folder, .gguf file or the thing itself;
     * NULL: none. */
    const char *head, *tokenizer;
    int64_t most_top_k;             /* ids of a row that it lists; 0: as its dialect says */
    const struct lb_naming *naming; /* of the tensors of a server that is no limbeckd; NULL: none */
};

struct lb_teachers_options {
    const struct lb_teacher_address *teachers; /* [n_teachers] */
    unsigned n_teachers;
    const char *cache_dir; /* NULL: no cache */
    uint64_t cache_max_bytes;
    double timeout;       /* seconds an answer may take before it is asked again; 0: 60 */
    double give_up_after; /* seconds a teacher may be lost (but for wait) or answer wrongly; 0: for ever */
    enum lb_lost_teacher on_lost;
    bool allow_other_kernels; /* the fingerprint alone says who answers, whatever bits its machine computes */
    const char *log_dir; /* where logs of our own daemons are kept if the folder is there; NULL: nowhere */
    volatile sig_atomic_t *stop; /* set by a signal: ends all waiting with LB_E_CANCELLED; may be NULL */
};

/* Starts local: daemons, connects to all teachers (waiting for them as on_lost says), reads their info,
 * checks that replicas agree on who answers: fingerprint and compute. Nothing of options is kept but stop. */
LB_NODISCARD enum lb_status lb_teachers_open(const struct lb_teachers_options *options,
                                             struct lb_teachers **out, struct lb_detail *detail);
/* The same with the teachers, cache and policies of a recipe. */
LB_NODISCARD enum lb_status lb_teachers_open_recipe(const struct lb_recipe *recipe,
                                                    volatile sig_atomic_t *stop, struct lb_teachers **out,
                                                    struct lb_detail *detail);
/* Stops what it started. Accepts NULL. */
void lb_teachers_close(struct lb_teachers *teachers);

unsigned lb_teachers_count(const struct lb_teachers *teachers);
const struct lb_teacher_info *lb_teachers_info(const struct lb_teachers *teachers, unsigned k);
/* A teacher whose server does not tell its vocabulary is taken to have v ids: answers beyond them are
 * refused. Before anything that is made of v. */
void lb_teachers_assume_vocab(struct lb_teachers *teachers, unsigned k, int64_t v);
/* From now on teacher k is asked with the whole vocabulary's ids of the samples' trimmed ones, and its head
 * is that of the kept ids. Before its head is fetched and before the first submit. map is borrowed. */
LB_NODISCARD enum lb_status lb_teachers_set_map(struct lb_teachers *teachers, unsigned k,
                                                const struct lb_vocab_map *map, struct lb_detail *detail);
/* Fetched at first use, and checked against the fingerprint; with a filled cache it is there without the
 * teacher. Owned by teachers. */
LB_NODISCARD enum lb_status lb_teachers_head(struct lb_teachers *teachers, unsigned k,
                                             const struct lb_teacher_head **out, struct lb_detail *detail);
/* The teacher's tokenizer.json into out, which is empty and whose maximum bounds it; checked against the
 * fingerprint in the metadata. LB_E_NOTFOUND when it has none. From the cache when it is there. */
LB_NODISCARD enum lb_status lb_teachers_tokenizer(struct lb_teachers *teachers, unsigned k,
                                                  struct lb_buf *out, struct lb_detail *detail);
/* What teacher k is asked about every sample; before the first submit. LB_E_ARG when it does not give all of
 * it.
 */
LB_NODISCARD enum lb_status lb_teachers_set_spec(struct lb_teachers *teachers, unsigned k,
                                                 const struct lb_ask_spec *spec, struct lb_detail *detail);

/* Whether it gives all of spec: LB_E_ARG, which names what is missing. Sets nothing. */
LB_NODISCARD enum lb_status lb_teachers_gives(const struct lb_teachers *teachers, unsigned k,
                                              const struct lb_ask_spec *spec, struct lb_detail *detail);

/* The number that the next question has: of all that are asked of these teachers. */
int64_t lb_teachers_next(const struct lb_teachers *teachers);
/* Asks about n samples as question number `number` (0, 1, 2, ... without gaps, ahead of take). wanted [n *
 * teachers]: which teacher is asked about which sample (route), NULL: all. what samples point
 * to stays valid until release. Returns at once; the work goes on in the background. */
LB_NODISCARD enum lb_status lb_teachers_submit(struct lb_teachers *teachers, int64_t number,
                                               const struct lb_sample *samples, int64_t n, const bool *wanted,
                                               struct lb_detail *detail);
/* The same, but each teacher is asked what specs [teachers] says, for this question only. LB_E_ARG when one
 * does not give all of it. */
LB_NODISCARD enum lb_status lb_teachers_submit_as(struct lb_teachers *teachers, int64_t number,
                                                  const struct lb_sample *samples, int64_t n,
                                                  const bool *wanted, const struct lb_ask_spec *specs,
                                                  struct lb_detail *detail);
/* Waits for question `number` (in order). answers[i * teachers + k] is NULL where not wanted, or where the
 * teacher is lost and the recipe says renormalise. Valid until lb_teachers_release(number). */
LB_NODISCARD enum lb_status lb_teachers_take(struct lb_teachers *teachers, int64_t number,
                                             const struct lb_answer *const **out_answers,
                                             struct lb_detail *detail);
void lb_teachers_release(struct lb_teachers *teachers, int64_t number);
/* The log-probabilities of the samples' labels (LB_OUT_ACTUAL, FP32), asked of teacher k alone, at once and
 * not counted: answers [n] with their data in arena. The cache is asked first, and keeps what it did not
 * hold. its_ids: the samples have its own ids, whatever map it has. LB_E_UNAVAILABLE when it is away and the
 * cache lacks one; any failure is for the caller to judge. */
LB_NODISCARD enum lb_status lb_teachers_ask_once(struct lb_teachers *teachers, unsigned k,
                                                 const struct lb_sample *samples, int64_t n, bool its_ids,
                                                 struct lb_arena *arena, struct lb_answer *answers,
                                                 struct lb_detail *detail);
/* Whether a server that only says what ids it makes of texts makes those of tokenizer (NULL: not known; the
 * teacher's own comes first where the recipe names it). LB_E_MISMATCH with the text, both sides' ids and what
 * to do; where the server does not say, the log tells. */
LB_NODISCARD enum lb_status lb_teachers_check_tokenizer(const struct lb_teachers *teachers, unsigned k,
                                                        const struct lb_tokenizer *tokenizer,
                                                        struct lb_detail *detail);
/* How many tokens the tokenizer has that the recipe names of a teacher; 0: it names none. */
int64_t lb_teachers_named_tokens(const struct lb_teachers *teachers, unsigned k);
/* The tokenizer_config.json that goes with it, asked for at once, and only of a teacher that is away taken
 * from the cache; out stays empty when the server has none. */
LB_NODISCARD enum lb_status lb_teachers_tokenizer_config(const struct lb_teachers *teachers, unsigned k,
                                                         struct lb_buf *out, struct lb_detail *detail);
/* Both in one: the teacher's tokenizer, configured; the caller destroys it. what: the latter, for errors. */
LB_NODISCARD enum lb_status lb_teachers_open_tokenizer(struct lb_teachers *teachers, unsigned k,
                                                       const char *what, struct lb_tokenizer **out,
                                                       struct lb_detail *detail);
void lb_teachers_stats(const struct lb_teachers *teachers, struct lb_teachers_stats *out);

#endif
