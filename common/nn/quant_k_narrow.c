/* Q4_K and Q6_K from weights: the scales that give the least sum of squared errors, as far as a search from
 * several sides finds them. ggml's own search weighs large weights more, and looks less far. */
#include "common/nn/quant_block.h"

#include <math.h>
#include <stdbool.h>

/* What is taken of a weight that is no number or none that a block holds. */
static float sound(float x) {
    return x != x ? 0 : x > 1e30f ? 1e30f : x < -1e30f ? -1e30f : x;
}

static float as_half(float x, uint8_t half[2]) {
    uint16_t h = lb_f32_to_f16(x);
    half[0] = (uint8_t)h;
    half[1] = (uint8_t)(h >> 8);
    return lb_f16_to_f32(h);
}

/* x rounded, between least and most. */
static float code(float x, float least, float most) {
    float r = rintf(x);
    return r < least ? least : r > most ? most : r;
}

static int whole(float x, int least, int most) {
    return (int)code(x, (float)least, (float)most);
}

/* ---- Q6_K: 16 parts of 16 weights, d scale_i q; q from -32 to 31, scales from -128 to 127 ---- */

enum { PARTS_6 = 16, N_6 = 16 };

/* The sums that decide about a part's codes. */
struct sums {
    double xq, qq;
};

static struct sums round_6(const float *x, float inverse, float q[N_6]) {
    struct sums s = {0, 0};
    for (int j = 0; j < N_6; j++) {
        q[j] = code(inverse * x[j], -32, 31);
    }
    for (int j = 0; j < N_6; j++) {
        s.xq += (double)x[j] * q[j];
        s.qq += (double)q[j] * q[j];
    }
    return s;
}

/* The scale of a part by itself: from that which gives the weight farthest from zero one of the codes about
 * the outermost, the best for the codes so found. */
static float part_scale_6(const float *x) {
    float farthest = 0, q[N_6];
    double best = 0, scale = 0;
    for (int j = 0; j < N_6; j++) {
        farthest = fabsf(x[j]) > fabsf(farthest) ? x[j] : farthest;
    }
    for (int i = -12; i <= 12 && farthest != 0; i++) {
        float inverse = -(32 + 0.1f * (float)i) / farthest;
        struct sums s = isfinite(inverse) ? round_6(x, inverse, q) : (struct sums){0, 0};
        if (s.qq > 0 && s.xq * s.xq > best * s.qq) {
            best = s.xq * s.xq / s.qq;
            scale = s.xq / s.qq;
        }
    }
    return (float)scale;
}

/* A block that is being made. */
struct block_6 {
    float scale; /* as an f16 has it */
    int scales[PARTS_6];
    float q[PARTS_6][N_6];
};

/* The part's codes under one scale; what they leave of the sum of squares, less that sum. */
static double try_6(const struct block_6 *b, const float *x, int scale, float q[N_6]) {
    float by = b->scale * (float)scale, inverse = by != 0 ? 1 / by : 0;
    struct sums s = round_6(x, isfinite(inverse) ? inverse : 0, q);
    return (double)by * by * s.qq - 2 * (double)by * s.xq;
}

/* The best scale of each part about the wanted one, under b->scale; the sum of what they leave. */
static double settle_6(struct block_6 *b, const float *x, const float wanted[PARTS_6]) {
    double left = 0;
    for (int i = 0; i < PARTS_6; i++) {
        float q[N_6];
        int about = b->scale != 0 ? whole(wanted[i] / b->scale, -128, 127) : 0;
        double least = INFINITY;
        for (int k = about - 2; k <= about + 2; k++) {
            double here = k >= -128 && k <= 127 ? try_6(b, x + i * N_6, k, q) : INFINITY;
            if (here < least) {
                least = here;
                b->scales[i] = k;
                memcpy(b->q[i], q, sizeof q);
            }
        }
        left += least;
    }
    return left;
}

/* The block's scale that is best for its codes. */
static float refit_6(const struct block_6 *b, const float *x) {
    double xq = 0, qq = 0;
    for (int i = 0; i < PARTS_6; i++) {
        for (int j = 0; j < N_6; j++) {
            double v = (double)b->scales[i] * b->q[i][j];
            xq += v * x[i * N_6 + j];
            qq += v * v;
        }
    }
    return qq > 0 ? (float)(xq / qq) : 0;
}

static void pack_6(const struct block_6 *b, struct lb_q6_k_block *out) {
    memset(out->low, 0, sizeof out->low);
    memset(out->high, 0, sizeof out->high);
    for (int i = 0; i < PARTS_6; i++) {
        int s = i / 2 % 4, low_shift = s / 2 * 4, high_shift = s * 2;
        uint8_t *low = out->low + i / 8 * 64 + s % 2 * 32 + i % 2 * 16;
        uint8_t *high = out->high + i / 8 * 32 + i % 2 * 16;
        out->scales[i] = (int8_t)b->scales[i];
        for (int j = 0; j < N_6; j++) {
            int q = (int)b->q[i][j] + 32;
            low[j] = (uint8_t)(low[j] | (q & 15) << low_shift);
            high[j] = (uint8_t)(high[j] | q >> 4 << high_shift);
        }
    }
}

void lb_q6_k_narrow(const float *src, unsigned char *dst, int64_t n) {
    struct lb_q6_k_block *out = (void *)dst;
    for (int64_t k = 0; k < n / 256; k++, out++, src += 256) {
        float x[256], wanted[PARTS_6], farthest = 0;
        struct block_6 best = {0}, b = {0};
        for (int i = 0; i < 256; i++) {
            x[i] = sound(src[i]);
        }
        for (int i = 0; i < PARTS_6; i++) {
            wanted[i] = part_scale_6(x + i * N_6);
            farthest = fabsf(wanted[i]) > fabsf(farthest) ? wanted[i] : farthest;
        }
        best.scale = as_half(farthest / -128, out->scale);
        double least = settle_6(&best, x, wanted);
        for (int turn = 0; turn < 2; turn++) {
            uint8_t half[2];
            b.scale = as_half(refit_6(&best, x), half);
            double here = settle_6(&b, x, wanted);
            if (here < least) {
                least = here;
                best = b;
                memcpy(out->scale, half, sizeof half);
            }
        }
        pack_6(&best, out);
    }
}

/* ---- Q4_K: 8 parts of 32 weights, d scale_i q - least least_i; q from 0 to 15, scales and leasts to 63 ----
 */

enum { PARTS_4 = 8, N_4 = 32 };

/* Weights as scale q - below, of a part. */
struct line {
    double scale, below;
};

struct sums_4 {
    double x, q, xq, qq;
};

static struct sums_4 round_4(const float *x, float inverse, float below, float q[N_4]) {
    struct sums_4 s = {0, 0, 0, 0};
    for (int j = 0; j < N_4; j++) {
        q[j] = code(inverse * (x[j] + below), 0, 15);
    }
    for (int j = 0; j < N_4; j++) {
        s.x += x[j];
        s.q += q[j];
        s.xq += (double)x[j] * q[j];
        s.qq += (double)q[j] * q[j];
    }
    return s;
}

/* What a line leaves of the sum of squares, less that sum. */
static double left_by(const struct sums_4 *s, struct line l) {
    return l.scale * l.scale * s->qq + N_4 * l.below * l.below - 2 * l.scale * l.below * s->q -
           2 * l.scale * s->xq + 2 * l.below * s->x;
}

/* The best line for these codes; below is never negative. */
static struct line line_of(const struct sums_4 *s) {
    double d = N_4 * s->qq - s->q * s->q;
    struct line l = {0, 0};
    if (d > 0) {
        l.scale = (N_4 * s->xq - s->x * s->q) / d;
        l.below = (l.scale * s->q - s->x) / N_4;
    }
    if (!(d > 0) || l.below < 0) {
        l.below = 0;
        l.scale = s->qq > 0 ? s->xq / s->qq : 0;
    }
    return l;
}

/* The line of a part by itself. */
static struct line part_line_4(const float *x) {
    float least = 0, most = x[0], q[N_4];
    for (int j = 0; j < N_4; j++) {
        least = x[j] < least ? x[j] : least;
        most = x[j] > most ? x[j] : most;
    }
    struct line best = {0, -least};
    if (!(most > least)) {
        return best;
    }
    double left = INFINITY;
    for (int i = -12; i <= 12; i++) {
        float inverse = (15 + 0.1f * (float)i) / (most - least);
        struct sums_4 s = round_4(x, isfinite(inverse) ? inverse : 0, -least, q);
        struct line l = line_of(&s);
        double here = left_by(&s, l);
        if (l.scale >= 0 && here < left) {
            left = here;
            best = l;
        }
    }
    return best;
}

struct block_4 {
    float scale, least; /* as f16 have them */
    int scales[PARTS_4], leasts[PARTS_4];
    float q[PARTS_4][N_4];
};

static double try_4(const struct block_4 *b, const float *x, int scale, int least, float q[N_4]) {
    float by = b->scale * (float)scale, below = b->least * (float)least, inverse = by != 0 ? 1 / by : 0;
    struct sums_4 s = round_4(x, isfinite(inverse) ? inverse : 0, below, q);
    return left_by(&s, (struct line){by, below});
}

static int about(double wanted, float unit) {
    return unit > 0 ? whole((float)(wanted / unit), 0, 63) : 0;
}

static double settle_4(struct block_4 *b, const float *x, const struct line wanted[PARTS_4]) {
    double left = 0;
    for (int i = 0; i < PARTS_4; i++) {
        float q[N_4];
        int scale = about(wanted[i].scale, b->scale), least = about(wanted[i].below, b->least);
        double smallest = INFINITY;
        for (int k = 0; k < 9; k++) {
            int s = scale + k / 3 - 1, l = least + k % 3 - 1;
            bool fits = s >= 0 && s <= 63 && l >= 0 && l <= 63;
            double here = fits ? try_4(b, x + i * N_4, s, l, q) : INFINITY;
            if (here < smallest) {
                smallest = here;
                b->scales[i] = s;
                b->leasts[i] = l;
                memcpy(b->q[i], q, sizeof q);
            }
        }
        left += smallest;
    }
    return left;
}

/* The block's two numbers that are best for its codes: a plane through the weights. */
static struct line refit_4(const struct block_4 *b, const float *x) {
    double vv = 0, vl = 0, ll = 0, xv = 0, xl = 0;
    for (int i = 0; i < PARTS_4; i++) {
        double l = b->leasts[i];
        for (int j = 0; j < N_4; j++) {
            double v = (double)b->scales[i] * b->q[i][j];
            vv += v * v;
            vl += v * l;
            ll += l * l;
            xv += x[i * N_4 + j] * v;
            xl += x[i * N_4 + j] * l;
        }
    }
    double d = vv * ll - vl * vl;
    struct line l = {vv > 0 ? xv / vv : 0, 0};
    if (d > 0) {
        l = (struct line){(xv * ll - xl * vl) / d, (xv * vl - xl * vv) / d};
    }
    return l.scale >= 0 && l.below >= 0 ? l : (struct line){b->scale, b->least};
}

static void pack_4(const struct block_4 *b, struct lb_q4_k_block *out) {
    for (int i = 0; i < 4; i++) {
        out->scales[i] = (uint8_t)(b->scales[i] | b->scales[4 + i] >> 4 << 6);
        out->scales[4 + i] = (uint8_t)(b->leasts[i] | b->leasts[4 + i] >> 4 << 6);
        out->scales[8 + i] = (uint8_t)((b->scales[4 + i] & 15) | (b->leasts[4 + i] & 15) << 4);
    }
    for (int i = 0; i < PARTS_4; i += 2) {
        for (int j = 0; j < N_4; j++) {
            out->q[i * 16 + j] = (uint8_t)((int)b->q[i][j] | (int)b->q[i + 1][j] << 4);
        }
    }
}

void lb_q4_k_narrow(const float *src, unsigned char *dst, int64_t n) {
    struct lb_q4_k_block *out = (void *)dst;
    for (int64_t k = 0; k < n / 256; k++, out++, src += 256) {
        float x[256];
        struct line wanted[PARTS_4], most = {0, 0};
        struct block_4 best = {0}, b = {0};
        for (int i = 0; i < 256; i++) {
            x[i] = sound(src[i]);
        }
        for (int i = 0; i < PARTS_4; i++) {
            wanted[i] = part_line_4(x + i * N_4);
            most.scale = wanted[i].scale > most.scale ? wanted[i].scale : most.scale;
            most.below = wanted[i].below > most.below ? wanted[i].below : most.below;
        }
        best.scale = as_half((float)(most.scale / 63), out->scale);
        best.least = as_half((float)(most.below / 63), out->least);
        double left = settle_4(&best, x, wanted);
        for (int turn = 0; turn < 2; turn++) {
            struct line l = refit_4(&best, x);
            uint8_t scale[2], least[2];
            b.scale = as_half((float)l.scale, scale);
            b.least = as_half((float)l.below, least);
            double here = settle_4(&b, x, wanted);
            if (here < left) {
                left = here;
                best = b;
                memcpy(out->scale, scale, sizeof scale);
                memcpy(out->least, least, sizeof least);
            }
        }
        pack_4(&best, out);
    }
}
