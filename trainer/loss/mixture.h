/* Several teachers, one target: weights per sequence, and distributions made one.
 */
#ifndef LB_LOSS_MIXTURE_H
#define LB_LOSS_MIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#define LB_MAX_TEACHERS 16

enum lb_mixture_method {
    LB_MIX_PROBS,  /* p = sum_k w_k softmax(z_k / T) */
    LB_MIX_LOGITS, /* z = sum_k w_k z_k */
    LB_MIX_LOSSES, /* L = sum_k w_k L(p_k, q) */
    LB_MIX_CA_MKD, /* mean of probabilities, w_k per sequence from the label's cross entropy under teacher k
                    */
    LB_MIX_ROUTE   /* the teacher whose tags hold the sequence's tag (several: equal weights) */
};

/* The weights of the teachers for one sequence, summing to 1 over those that answered.
 * present[k]: teacher k answered; static_weight[k] >= 0 from the recipe; cross_entropy[k]: of the labels
 * under teacher k, nats per position (read for ca_mkd only). out [n]. ca_mkd (Zhang et al. 2022,
 * "Confidence-Aware Multi-teacher Knowledge Distillation", eq. 2): w_k = (1 - softmax_k(CE)) / (K - 1), times
 * the static weight, renormalised. One teacher: 1. */
void lb_mixture_weights(enum lb_mixture_method method, unsigned n, const bool *present,
                        const double *static_weight, const double *cross_entropy, double *out);

/* One distribution p [V] from the teachers' logits z[k] [V] (NULL or weight 0: absent) at a temperature;
 * returns sum p log p. mean_logits: softmax(sum w_k z_k / T), the product mixture. All others: sum w_k
 * softmax(z_k / T). */
double lb_mixture_dense(enum lb_mixture_method method, unsigned n, const float *const *z,
                        const double *weight, double temperature, int64_t v, float *p);

#endif
