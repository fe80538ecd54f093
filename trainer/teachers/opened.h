/* What teachers.c (opening, questions), meet.c (who they are), remembered.c (what is kept of that),
 * given.c and files.c (heads, tokenizers) and once.c (single questions) share. Nobody else includes this. */
#ifndef LB_TEACHERS_OPENED_H
#define LB_TEACHERS_OPENED_H

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "trainer/cache/cache.h"
#include "trainer/teachers/local.h"
#include "trainer/teachers/questions.h"
#include "trainer/teachers/teachers.h"

struct teacher {
    const struct lb_teacher_address *is;
    const struct lb_dialect *dialect;
    char label[LB_MAX_NAME + 16]; /* "teacher math", for errors */
    const char **urls;            /* [n_urls] borrowed */
    bool *reached;                /* [n_urls] */
    char (*ids)[LB_MAX_MODEL_ID]; /* [n_urls] model_id of each; of those not reached what another has */
    int n_urls;
    struct lb_local *local;
    char *own_token; /* from token_file */
    const char *token;
    struct lb_teacher_info info;
    struct lb_tokenizer *tokenizer;   /* of a file that the recipe names; NULL: none */
    struct lb_teacher_head from_file; /* the same of its head, as long as nobody has asked for it */
    bool has_head;
    struct lb_ask_spec spec; /* of no outputs until it is set */
    struct lb_teacher_head head;
    const struct lb_vocab_map *map; /* NULL: samples have its ids */
};

struct lb_teachers {
    struct lb_teachers_options options;
    struct lb_client *http;
    struct lb_cache *cache;
    struct teacher *teachers;
    unsigned n;
    struct lb_asker *asker; /* from the first submit on */
    struct lb_arena arena;  /* options' strings */
};

uint64_t lb_teachers_timeout_ns(const struct lb_teachers *teachers);
uint64_t lb_teachers_give_up_ns(const struct lb_teachers *teachers);
/* For one request to a replica, of at most the seconds that a request about a model takes. */
struct lb_contact lb_teacher_contact(const struct lb_teachers *teachers, const struct teacher *teacher,
                                     int replica);
bool lb_teacher_is_local(const struct lb_teacher_address *is);

/* ---- what the recipe gives of a teacher whose server does not ---- */

/* Opens the head and tokenizer that the recipe names; the teacher owns them. */
LB_NODISCARD enum lb_status lb_teacher_open_files(struct teacher *teacher, struct lb_detail *detail);
/* Adds to what a server says what the recipe says of it. LB_E_MISMATCH: the head is another model's. */
LB_NODISCARD enum lb_status lb_teacher_complete(const struct lb_teachers *teachers,
                                                const struct teacher *teacher, struct lb_teacher_info *info,
                                                struct lb_detail *detail);
/* Whether the head that the recipe names (from_file) goes with the server's states: own log-probabilities of
 * the fixed question by both ways. LB_E_MISMATCH says what does not fit. */
LB_NODISCARD enum lb_status lb_teacher_check_head(const struct lb_teachers *teachers,
                                                  const struct teacher *teacher, struct lb_detail *detail);

/* ---- patience: rounds over all replicas, until one gives what is wanted ---- */

/* One replica's turn to give what is wanted. *damaged (false before): an answer came, but not as it was sent.
 */
typedef enum lb_status lb_teacher_turn(const struct lb_teachers *teachers, const struct teacher *teacher,
                                       int replica, void *context, bool *damaged, struct lb_detail *detail);
/* Gives one replica after the other its turn, with the recipe's patience. LB_E_CANCELLED and LB_E_NOMEM end
 * it. */
LB_NODISCARD enum lb_status lb_teacher_try(const struct lb_teachers *teachers, const struct teacher *teacher,
                                           lb_teacher_turn *turn, void *context, struct lb_detail *detail);

/* ---- what a teacher says of itself ---- */

/* Whether it has no address to be asked at: it is offline, and what the cache has of it is all there is. */
bool lb_teacher_is_away(const struct teacher *teacher);

/* Reaches a teacher, or takes what the cache remembers of it when it is away. */
LB_NODISCARD enum lb_status lb_teacher_meet(const struct lb_teachers *teachers, struct teacher *teacher,
                                            struct lb_detail *detail);

/* ---- what is remembered of a teacher ---- */

/* Keeps bytes in the cache, if there is one; complains of failures in the log. */
void lb_teachers_remember(const struct lb_teachers *teachers, const char *name, const void *bytes,
                          size_t len);
/* So what it says of itself. */
void lb_teacher_remember(const struct lb_teachers *teachers, const struct teacher *teacher,
                         const struct lb_buf *text);
/* The info from the cache; false when it is not there. */
bool lb_teacher_recall(const struct lb_teachers *teachers, struct teacher *teacher);
/* A server without a fingerprint goes by the one that the cache (without one, the run folder) remembers of it
 * where its answers are near those of then: text and info are of then, afterwards, but for what
 * lb_stated_renew keeps. Else these are remembered. */
LB_NODISCARD enum lb_status lb_teacher_settle(const struct lb_teachers *teachers,
                                              const struct teacher *teacher, struct lb_buf *text,
                                              struct lb_teacher_info *info, struct lb_detail *detail);

#endif
