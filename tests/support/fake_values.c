/* What a fake teacher says: numbers that depend on everything that they should depend on, and could be true.
 */
#include "tests/support/fake_teacher.h"

#include "common/base/rng.h"

#include <math.h>
#include <string.h>

/* Within -4 .. 4. */
static float noise(const char *fingerprint, const char *output, const int32_t *ids, int64_t t, int64_t c) {
    uint64_t h = 1469598103934665603ull;
    for (const char *p = fingerprint; *p; p++) {
        h = lb_mix64(h ^ (uint64_t)*p);
    }
    for (const char *p = output; *p; p++) {
        h = lb_mix64(h ^ (uint64_t)*p);
    }
    for (int64_t i = 0; i <= t; i++) {
        h = lb_mix64(h ^ (uint32_t)ids[i]);
    }
    h = lb_mix64(h ^ (uint64_t)c);
    return (float)((double)(h >> 40) / 16777216.0 * 8 - 4);
}

float fake_value(const char *fingerprint, const char *output, const int32_t *ids, int64_t t, int64_t c) {
    if (!strcmp(output, "logits.topk_values")) { /* falling */
        return noise(fingerprint, output, ids, t, 0) - (float)c / 4;
    }
    if (!strncmp(output, "logprobs.", 9)) {
        return -0.01f - fabsf(noise(fingerprint, output, ids, t, c));
    }
    if (!strcmp(output, "logsumexp")) { /* above all logits */
        return 12 + noise(fingerprint, output, ids, t, c);
    }
    if (!strncmp(output, "attentions.", 11)) { /* probabilities of what came before */
        double sum = 0;
        for (int64_t u = 0; u <= t; u++) {
            sum += 5 + noise(fingerprint, output, ids, t, u);
        }
        return c > t ? 0 : (float)((5 + noise(fingerprint, output, ids, t, c)) / sum);
    }
    return noise(fingerprint, output, ids, t, c);
}

int32_t fake_id(const char *fingerprint, const char *output, const int32_t *ids, int64_t t, int64_t c,
                int64_t vocab_size) {
    double first = (noise(fingerprint, output, ids, t, 0) + 4) / 8 * (double)vocab_size;
    return (int32_t)(((int64_t)first + c) % vocab_size);
}
