/* Teachers as the training loop sees them: questions go in ahead of time, answers come out in order.
 *
 * Between the two stand the cache (a question answered before costs no request), the pool of replicas,
 * retries and the check of digests. Whatever happens in between, the answers to the same questions are the
 * same bytes.
 */
#ifndef LB_TRAINER_TEACHER_H
#define LB_TRAINER_TEACHER_H

#include "common/base/status.h"
#include "proto/names.h"
#include "proto/oip.h"
#include "trainer/dataset.h"
#include "trainer/recipe.h"

#include <signal.h>

#define LB_MAX_ASKED 16

/* What is asked of one teacher for every sequence. */
struct lb_ask_spec {
    size_t n_outputs;
    struct {
        enum lb_output_kind kind;
        int layer;
        enum lb_datatype datatype;
    } outputs[LB_MAX_ASKED];
    int64_t top_k;
    double temperature; /* of logsumexp and logprobs.actual */
};

/* What a teacher says of itself (GET /v2/models/M). */
struct lb_teacher_info {
    char fingerprint[LB_SHA256_HEX];
    char tokenizer_fingerprint[LB_SHA256_HEX]; /* "" when it has none */
    char model[LB_MAX_NAME];
    int64_t vocab_size, hidden_size, n_layers, n_heads, max_length, input_size;
    int64_t parameters, bytes; /* 0: not told */
};

/* One teacher's answer about one sequence of n positions. Tensors lack the batch dimension: [n, ...]. */
struct lb_answer {
    size_t n_tensors;
    struct lb_wire_tensor tensors[LB_MAX_ASKED]; /* in the order of the spec */
};

/* A teacher's output head, downloaded once: FP32. */
struct lb_teacher_head {
    float *weight; /* [V, C] */
    float *bias;   /* [V] or NULL */
    int64_t vocab_size, hidden_size;
};

struct lb_teachers;

/* Counters since create, for the progress line and metrics. */
struct lb_teachers_stats {
    uint64_t requests, retries, failures;
    uint64_t questions, cache_hits;
    uint64_t bytes_sent, bytes_received, tokens_answered;
    double wait_seconds; /* the training loop waited for answers */
};

/* Starts local: daemons, connects to all teachers (waiting for them as on_lost_teacher says), reads their
 * info, checks that replicas agree on the fingerprint. stop (may be NULL): set by a signal, ends all waiting
 * with LB_E_CANCELLED. */
LB_NODISCARD enum lb_status lb_teachers_open(const struct lb_recipe *recipe, volatile sig_atomic_t *stop,
                                             struct lb_teachers **out, struct lb_detail *detail);
/* Stops what it started. Accepts NULL. */
void lb_teachers_close(struct lb_teachers *teachers);

unsigned lb_teachers_count(const struct lb_teachers *teachers);
const struct lb_teacher_info *lb_teachers_info(const struct lb_teachers *teachers, unsigned k);
/* Fetched at first use, and checked against the fingerprint; with a filled cache it is there without the
 * teacher. Owned by teachers. */
LB_NODISCARD enum lb_status lb_teachers_head(struct lb_teachers *teachers, unsigned k,
                                             const struct lb_teacher_head **out, struct lb_detail *detail);
/* The teacher's tokenizer.json, appended to out (whose maximum bounds it); LB_E_NOTFOUND when it has none.
 * From the cache when it is there. */
LB_NODISCARD enum lb_status lb_teachers_tokenizer(struct lb_teachers *teachers, unsigned k,
                                                  struct lb_buf *out, struct lb_detail *detail);
/* Before the first submit. */
void lb_teachers_set_spec(struct lb_teachers *teachers, unsigned k, const struct lb_ask_spec *spec);

/* Asks about n samples as question number `number` (0, 1, 2, ... without gaps, ahead of take). wanted [n *
 * teachers]: which teacher is asked about which sample (route), NULL: all. samples' ids stay valid until
 * release. Returns at once; the work goes on in the background. */
LB_NODISCARD enum lb_status lb_teachers_submit(struct lb_teachers *teachers, int64_t number,
                                               const struct lb_sample *samples, int64_t n, const bool *wanted,
                                               struct lb_detail *detail);
/* Waits for question `number` (in order). answers[i * teachers + k] is NULL where not wanted, or where the
 * teacher is lost and the recipe says renormalise. Valid until lb_teachers_release(number). */
LB_NODISCARD enum lb_status lb_teachers_take(struct lb_teachers *teachers, int64_t number,
                                             const struct lb_answer *const **out_answers,
                                             struct lb_detail *detail);
void lb_teachers_release(struct lb_teachers *teachers, int64_t number);
void lb_teachers_stats(const struct lb_teachers *teachers, struct lb_teachers_stats *out);

#endif
