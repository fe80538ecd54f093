/* limbeck probe: what its two files share. probe.c prints, probe_ask.c asks. One thread. */
#ifndef LB_COMMAND_PROBE_H
#define LB_COMMAND_PROBE_H

#include "trainer/wire/dialect.h"

#include <signal.h>

#define LB_PROBE_QUESTIONS 5
#define LB_PROBE_LENGTH 32 /* positions of one */
#define LB_PROBE_BATCH 8   /* sequences of the question that measures speed */

/* One model at one address. */
struct lb_found {
    const char *url;
    const struct lb_dialect *dialect;
    char model[LB_MAX_NAME], state[32];
    bool served; /* what it says came */
    struct lb_teacher_info info;
    bool tells_vocab;                      /* else info's is a number that no vocabulary reaches */
    double latency_ms[LB_PROBE_QUESTIONS]; /* sorted */
    double tokens_per_second;              /* of one request about several sequences; 0: not answered */
    size_t n_answers;
    struct lb_arena arena;
    struct lb_answer answers[LB_PROBE_QUESTIONS];
    struct lb_found *next;
};

struct lb_probing {
    struct lb_client *http;
    const char *token, *model;        /* NULL: none, all */
    const struct lb_dialect *dialect; /* NULL: found out */
    const struct lb_naming *naming;   /* of tensors of servers that are no limbeckd; NULL: none */
    volatile sig_atomic_t *stop;
};

/* Appends the models at url to *last, which moves on. LB_E_UNSUPPORTED: no known kind of server;
 * LB_E_NOTFOUND: no model, or none of that name. */
LB_NODISCARD enum lb_status lb_probe_list(const struct lb_probing *probing, const char *url,
                                          struct lb_found ***last, struct lb_detail *detail);
/* Asks what it is, and questions. */
LB_NODISCARD enum lb_status lb_probe_ask(const struct lb_probing *probing, struct lb_found *found,
                                         struct lb_detail *detail);
/* Frees one; the next is returned. */
struct lb_found *lb_found_destroy(struct lb_found *found);

#endif
