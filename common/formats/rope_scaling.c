#include "common/formats/rope_scaling.h"

#include "common/nn/ops.h"

#include <math.h>

#define TWO_PI 6.283185307179586

int64_t lb_rope_dims(const struct lb_config *c) {
    return c->partial_rotary_factor > 0 ? (int64_t)((double)c->head_dim * c->partial_rotary_factor)
                                        : c->head_dim;
}

bool lb_rope_by_length(const struct lb_config *c) {
    return c->rope.type == LB_ROPE_DYNAMIC || c->rope.type == LB_ROPE_LONGROPE;
}

static double stretch(const struct lb_config *c) {
    return c->rope.factor > 0 ? c->rope.factor
                              : (double)c->max_position_embeddings / (double)c->rope.original;
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

double lb_rope_attention_factor(const struct lb_config *c) {
    const struct lb_rope_scaling *r = &c->rope;
    if (r->type != LB_ROPE_YARN && r->type != LB_ROPE_LONGROPE) {
        return 1;
    }
    if (r->attention_factor > 0) {
        return r->attention_factor;
    }
    double factor = stretch(c);
    if (r->type == LB_ROPE_LONGROPE) {
        return factor <= 1 ? 1 : sqrt(1 + log(factor) / log((double)r->original));
    }
    return r->mscale > 0 && r->mscale_all_dim > 0
               ? yarn_mscale(factor, r->mscale) / yarn_mscale(factor, r->mscale_all_dim)
               : yarn_mscale(factor, 1);
}

/* The dimension whose wave turns so often within the original length. */
static double yarn_dimension(const struct lb_config *c, double turns, double dims) {
    return dims * log((double)c->rope.original / (turns * TWO_PI)) / (2 * log(c->rope_theta));
}

/* Waves that turn often stay, those that turn rarely are stretched, a ramp lies between. */
static void yarn(const struct lb_config *c, int64_t dims, double *f) {
    const struct lb_rope_scaling *r = &c->rope;
    double low = yarn_dimension(c, r->beta_fast > 0 ? r->beta_fast : 32, (double)dims);
    double high = yarn_dimension(c, r->beta_slow > 0 ? r->beta_slow : 1, (double)dims), factor = stretch(c);
    if (!r->untruncated) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)dims - 1);
    high = low == high ? high + 0.001 : high;
    for (int64_t j = 0; j < dims / 2; j++) {
        double ramp = fmin(fmax(((double)j - low) / (high - low), 0), 1);
        f[j] = f[j] / factor * ramp + f[j] * (1 - ramp);
    }
}

static void llama3(const struct lb_rope_scaling *r, int64_t dims, double *f) {
    double original = (double)r->original;
    for (int64_t j = 0; j < dims / 2; j++) {
        double wave = TWO_PI / f[j];
        if (wave > original / r->low_freq_factor) {
            f[j] /= r->factor;
        } else if (wave >= original / r->high_freq_factor) {
            double smooth =
                (original / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
            f[j] = (1 - smooth) * f[j] / r->factor + smooth * f[j];
        }
    }
}

void lb_rope_scaled(const struct lb_config *c, int64_t length, double *f) {
    const struct lb_rope_scaling *r = &c->rope;
    int64_t dims = lb_rope_dims(c);
    double theta = (double)(float)c->rope_theta; /* a GGUF has no more digits */
    lb_rope_frequencies(theta, dims, f);
    switch ((enum lb_rope_type)r->type) {
    case LB_ROPE_DEFAULT:
        break;
    case LB_ROPE_LINEAR:
        for (int64_t j = 0; j < dims / 2; j++) {
            f[j] /= r->factor;
        }
        break;
    case LB_ROPE_DYNAMIC:
        if (length > r->original) {
            double more = r->factor * (double)length / (double)r->original - (r->factor - 1);
            lb_rope_frequencies(theta * pow(more, (double)dims / (double)(dims - 2)), dims, f);
        }
        break;
    case LB_ROPE_YARN:
        yarn(c, dims, f);
        break;
    case LB_ROPE_LONGROPE:
        for (int64_t j = 0; j < dims / 2; j++) {
            f[j] /= (length > r->original ? r->long_factor : r->short_factor)[j];
        }
        break;
    case LB_ROPE_LLAMA3:
        llama3(r, dims, f);
        break;
    }
}
