#include "trainer/learn/updates.h"

#include <math.h>
#include <stddef.h>

/* root is 1 / sqrt(1 - b2^t), rate is lr / (1 - b1^t), decay is 1 - lr wd; 1 - b is rounded once. */
static void adamw(const struct lb_update_part *part, const struct lb_update_now *now) {
    float *restrict p = part->value, *restrict g = part->grad, *restrict m = part->state[0],
                    *restrict v = part->state[1];
    const double t = (double)now->t;
    const float scale = (float)now->grad_scale, mix1 = (float)(1.0 - now->beta1), beta2 = (float)now->beta2,
                mix2 = (float)(1.0 - now->beta2), rate = (float)(now->lr / (1.0 - pow(now->beta1, t))),
                root = (float)(1.0 / sqrt(1.0 - pow(now->beta2, t))), epsilon = (float)now->epsilon,
                decay = part->decays ? (float)(1.0 - now->lr * now->weight_decay) : 1.0f;
    for (int64_t i = 0; i < part->n; i++) {
        float grad = g[i] * scale;
        float mi = m[i] + mix1 * (grad - m[i]);
        float vi = beta2 * v[i] + mix2 * grad * grad;
        p[i] = p[i] * decay - rate * (mi / (sqrtf(vi) * root + epsilon));
        m[i] = mi;
        v[i] = vi;
        g[i] = 0.0f;
    }
}

static void sgd(const struct lb_update_part *part, const struct lb_update_now *now) {
    float *restrict p = part->value, *restrict g = part->grad, *restrict m = part->state[0];
    const float scale = (float)now->grad_scale, rate = (float)now->lr, momentum = (float)now->momentum,
                decay = part->decays ? (float)now->weight_decay : 0.0f;
    for (int64_t i = 0; i < part->n; i++) {
        float step = g[i] * scale + decay * p[i];
        if (m != NULL) {
            m[i] = momentum * m[i] + step;
            step = now->nesterov ? step + momentum * m[i] : m[i];
        }
        p[i] -= rate * step;
        g[i] = 0.0f;
    }
}

static void lion(const struct lb_update_part *part, const struct lb_update_now *now) {
    float *restrict p = part->value, *restrict g = part->grad, *restrict m = part->state[0];
    const float scale = (float)now->grad_scale, rate = (float)now->lr, mix1 = (float)(1.0 - now->beta1),
                mix2 = (float)(1.0 - now->beta2),
                decay = part->decays ? (float)(1.0 - now->lr * now->weight_decay) : 1.0f;
    for (int64_t i = 0; i < part->n; i++) {
        float grad = g[i] * scale;
        float towards = m[i] + mix1 * (grad - m[i]);
        float sign = (float)((towards > 0.0f) - (towards < 0.0f));
        p[i] = p[i] * decay - rate * sign;
        m[i] += mix2 * (grad - m[i]);
        g[i] = 0.0f;
    }
}

static const struct lb_update_rule rules[] = {
    {LB_OPTIM_ADAMW, 2, {"m", "v"}, false, adamw},
    {LB_OPTIM_SGD, 1, {"m"}, false, sgd},
    {LB_OPTIM_LION, 1, {"m"}, false, lion},
    {LB_OPTIM_MUON, 2, {"momentum", "v"}, true, adamw},
};

const struct lb_update_rule *lb_update_rule(const struct lb_recipe *recipe) {
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (rules[i].optim == recipe->optim) {
            return &rules[i];
        }
    }
    return &rules[0]; /* the recipe does not say */
}

unsigned lb_update_states(const struct lb_update_rule *rule, const struct lb_recipe *recipe) {
    return rule->optim == LB_OPTIM_SGD && !(recipe->momentum > 0) ? 0 : rule->n_states;
}
