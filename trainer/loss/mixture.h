/* Several teachers, one target: how much each counts, and distributions made one.
 *
 * One table (mixture.c), one file a way of weighing. Adding a mixture: its file with a `const struct
 * lb_mixture lb_mixture_<name>` that holds formula and paper, that file's line in meson.build, and one line
 * in the table.
 */
#ifndef LB_LOSS_MIXTURE_H
#define LB_LOSS_MIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_MAX_TEACHERS 16

/* What of the teachers becomes one. */
enum lb_combine {
    LB_COMBINE_PROBS,  /* p = sum_k w_k p_k: every loss is against that one distribution */
    LB_COMBINE_LOGITS, /* p = softmax(sum_k w_k z_k / T); whole logits only */
    LB_COMBINE_LOSSES  /* L = sum_k w_k L(p_k, q) */
};

/* What a mixture weighs by, beside the recipe's weights: bits. All of it at temperature 1, whatever the
 * losses' is. */
enum lb_mixture_needs {
    LB_NEEDS_CROSS_ENTROPY = 1, /* of the labels under each teacher */
    LB_NEEDS_ENTROPY = 2,       /* of each teacher's distribution */
    LB_NEEDS_MAX_PROB = 4,      /* the largest probability of it */
    LB_NEEDS_DRAW = 8,          /* a random number */
    LB_NEEDS_GRADIENTS = 16 /* of each teacher's losses at the student's logits, not at temperature 1 but at
                               the losses' */
};
/* Those that teachers' distributions tell, and nothing less. */
#define LB_NEEDS_DISTRIBUTIONS (LB_NEEDS_ENTROPY | LB_NEEDS_MAX_PROB)

/* The recipe's mixture_by: how sure a teacher is. */
enum lb_mixture_by { LB_BY_DEFAULT, LB_BY_CE, LB_BY_ENTROPY, LB_BY_MAX_PROB };
/* The recipe's mixture_states: by whose states losses between final states are weighed. */
enum lb_mixture_states { LB_STATES_DEFAULT, LB_STATES_TEACHER, LB_STATES_STUDENT };
/* The recipe's mixture_per: what has weights of its own. */
enum lb_mixture_per { LB_PER_DEFAULT, LB_PER_SEQUENCE, LB_PER_TOKEN, LB_PER_BATCH };
#define LB_PER(per) (1u << (per))

/* What is known of n teachers about one sequence, or one token of it. Means over a sequence's positions that
 * count; NULL unless needed. */
struct lb_weighing {
    unsigned n;
    const bool *present;         /* [n] teacher k answered */
    const double *given;         /* [n] the recipe's weights, at least 0 */
    const double *cross_entropy; /* [n] of the labels under teacher k at temperature 1, nats per position; 0
                                    of those absent and where the label is not known */
    const double *entropy;       /* [n] nats per position; 0 of those absent */
    const double *max_prob;      /* [n] 0 of those absent */
    enum lb_mixture_by by;       /* of mixtures that the recipe tells; not the default */
    double temperature;          /* of a softmax over teachers */
    double draw;                 /* in [0, 1) */
    const double *gram;          /* [n, n] inner products of the gradients; 0 of those absent */
};

struct lb_mixture {
    const char *name;
    unsigned needs; /* of enum lb_mixture_needs */
    bool by_choice; /* and what the recipe's mixture_by means */
    bool softened;  /* it has a softmax over teachers, at the recipe's mixture_temperature */
    unsigned per;   /* bits LB_PER(...) that mixture_per may say, of which sequences are the default; 0: its
                       weights are the same everywhere */
    bool of_states; /* it has weights of the student's states too, see mixture_states */
    bool by_tag;    /* a sequence is asked of the teachers that have its tag, and of no others */
    enum lb_combine combine;
    /* Changes w [n], which holds the given weight of each teacher that is present and 0 of the others; what
     * it leaves is made to sum to 1. NULL: the given weights. */
    void (*weigh)(const struct lb_weighing *in, double *w);
};

/* The i-th of the table; NULL behind the last. */
const struct lb_mixture *lb_mixture_at(size_t i);
/* NULL when there is none of that name. */
const struct lb_mixture *lb_mixture_find(const char *name);

/* What it weighs by where the recipe says this; by: LB_BY_DEFAULT is cross entropy. */
unsigned lb_mixture_needs(const struct lb_mixture *mixture, enum lb_mixture_by by);
/* How sure teacher k is, by in->by, as a score that is larger the surer it is: -CE, -H or the largest
 * probability. */
double lb_weighing_score(const struct lb_weighing *in, unsigned k);
/* w_k (1 - u_k / sum_j u_j) / (K - 1) of the K teachers whose weight w_k is not 0, u_k at least 0 saying how
 * unsure each is; as it is where K is 1 or nobody is unsure. */
void lb_weighing_by_share(const struct lb_weighing *in, const double *unsure, double *w);

/* The teachers' weights, out [n], at least 0 and summing to 1 over those present (all 0 when no teacher is
 * present or each of them has weight 0). */
void lb_mixture_weights(const struct lb_mixture *mixture, const struct lb_weighing *in, double *out);

/* The least |sum_k w_k g_k| of vectors by their inner products gram [n, n]: w [n] at least 0, of members
 * (there is one) and summing to 1. Fully corrective Frank-Wolfe (Wolfe 1976, "Finding the nearest point in a
 * polytope"), exact after a few rounds; for two members the closed form w_1 = (g_2 - g_1) g_2 / |g_1 - g_2|^2
 * cut to [0, 1]. Where several are least, one of them; even where all vectors are 0. */
void lb_min_norm(unsigned n, const double *gram, const bool *member, double *w);

/* One distribution p [V] from the teachers' logits z[k] [V] (NULL or weight 0: absent) at a temperature;
 * returns sum p log p. LB_COMBINE_LOGITS: softmax(sum w_k z_k / T), the product of powers. Else: sum w_k
 * softmax(z_k / T). */
double lb_mixture_dense(enum lb_combine combine, unsigned n, const float *const *z, const double *weight,
                        double temperature, int64_t v, float *p);

/* out [V] = sum w_k z_k */
void lb_mixture_logits(unsigned n, const float *const *z, const double *weight, int64_t v, float *out);

/* A teacher's largest probabilities. */
struct lb_truncated {
    int64_t k;
    const int32_t *ids; /* [k], each once */
    const float *p;     /* [k] */
    double tail;        /* the mass of the other V - k */
};

/* The mean of truncated distributions over the union S of their ids, with one tail:
 *   p(i) = sum_k w_k p_k(i) for i in S, where teacher k, if it did not list i, gives it an even share of its
 *   tail, u_k = tail_k / (V - K_k);   p_tail = sum_k w_k u_k (V - |S|).
 * All masses are accounted for: S and tail sum to 1 when each teacher's do. What is listed by all teachers is
 * exact. What only some list is off by at most sum w_k |p_k(i) - u_k| over the others, each less than w_k
 * times the least that teacher k listed; so losses on it are those of a near distribution, not of the exact
 * mean cut to S. Lists that agree, and one teacher given twice, are exact. weight 0: absent; a list without
 * ids is all tail. slot [V]: all -1, and left so. ids, p [min(V, sum of k)]. Returns |S|. */
int64_t lb_mixture_truncated(unsigned n, const struct lb_truncated *from, const double *weight, int64_t v,
                             int32_t *slot, int32_t *ids, float *p, double *out_tail);

#endif
