/* What tests of teachers share: a recipe for fakes, samples, and a check of answers against what a fake says.
 */
#ifndef LB_TESTS_ASKING_H
#define LB_TESTS_ASKING_H

#include "tests/support/fake_teacher.h"

#define ASKING_TEACHERS 3
#define ASKING_REPLICAS 4

/* A recipe with n teachers named t0, t1, ...; in heap memory of its own. */
struct asking {
    struct lb_recipe recipe;
    struct lb_recipe_teacher teachers[ASKING_TEACHERS];
    char names[ASKING_TEACHERS][8], urls[ASKING_TEACHERS][160];
    char replica_urls[ASKING_TEACHERS][ASKING_REPLICAS][160];
    const char *replicas[ASKING_TEACHERS][ASKING_REPLICAS];
    char directory[64]; /* a temporary folder */
};

void asking_setup(struct asking *asking);
void asking_teardown(struct asking *asking);
/* Adds a teacher with these addresses. */
void asking_add(struct asking *asking, const char *url);
void asking_add_replica(struct asking *asking, const char *url);
/* Turns the cache on, in the temporary folder. */
void asking_use_cache(struct asking *asking);

/* hidden_states.final FP16, top-4 ids INT32 and values FP16, logsumexp FP32 at temperature 2. */
extern const struct lb_ask_spec asking_spec;

/* n samples of 3 to 11 positions (of 4 features when features is set) that seed decides; asking_free_samples.
 */
struct lb_sample *asking_samples(int64_t n, uint64_t seed, bool features);
void asking_free_samples(struct lb_sample *samples, int64_t n);

/* Whether answer holds exactly what a fake of this fingerprint says about the sample under asking_spec; names
 * the first difference on standard error. */
bool asking_is_right(const struct lb_answer *answer, const struct lb_sample *sample, const char *fingerprint);
/* The same under another spec, of outputs that have positions first. */
bool asking_is_right_for(const struct lb_answer *answer, const struct lb_sample *sample,
                         const char *fingerprint, const struct lb_ask_spec *spec);
/* Opens the teachers and gives all of them asking_spec. */
enum lb_status asking_open(struct asking *asking, volatile sig_atomic_t *stop, struct lb_teachers **out,
                           struct lb_detail *detail);

#endif
