/* A student, two teachers and their answers, made up, and a whole training step of them: decoder (of
 * sentences: encoder), fused head, every loss and every mixture of the tables, projections, attention.
 *
 * For each tensor of the student the step's gradient g is compared with the change of the loss along g: (L(w
 * + e g/|g|) - L(w - e g/|g|)) / 2e must be |g|, with its sign. Losses are computed in float, so e is chosen
 * large and two step sizes are combined (Richardson) to keep the curvature out.
 */
#ifndef LB_TESTS_GRAD_STEP_WORLD_H
#define LB_TESTS_GRAD_STEP_WORLD_H

#include "common/base/rng.h"
#include "trainer/learn/step.h"

#include <stdbool.h>
#include <stdint.h>

#define SAMPLES 3
#define VOCAB 37
#define WHOLE 53 /* of a teacher whose vocabulary the student has a part of */
#define TEACHER_WIDTH 20
#define TEACHER_HEADS 3
#define RELATION_WIDTH 10 /* of a teacher's queries, keys and values */
#define MAX_T 16

/* What worlds are made like, and drawn from: a test that sets it puts it back. */
extern struct lb_worlds {
    struct lb_rng rng;
    const struct lb_vocab_map *trimmed; /* when set, the first teacher's */
    int64_t listed;                     /* of a teacher's ids; 8 */
    enum lb_mixture_per per;            /* default */
    bool by_head;                       /* pairs of final states are weighed by the teachers' heads */
    bool classes;                       /* student and teachers classify texts, of which each has one label */
} lb_worlds;

extern const enum lb_target_lane lb_world_lanes[2]; /* final states, top-k */

struct lb_world {
    struct lb_recipe recipe;
    struct lb_recipe_teacher teachers[2];
    struct lb_model *student;
    struct lb_plan plan;
    struct lb_teacher_info info[2];
    struct lb_teacher_head head[2];
    struct lb_sample samples[SAMPLES];
    struct lb_reading readings[SAMPLES][2];
    struct lb_chunk chunks[SAMPLES][MAX_T];
    struct lb_answer answers[SAMPLES * 2];
    const struct lb_answer *pointers[SAMPLES * 2];
    struct lb_step *step;
    int64_t rows;
};

/* only NULL: every smooth loss of the table that the lane serves and a decoder's student can learn from, as
 * far as a recipe has room. Fails the test when it can't, as all of these. */
struct lb_world *lb_world_create(const struct lb_mixture *mixture, enum lb_target_lane lane, bool tied,
                                 const struct lb_loss *only);
void lb_world_destroy(struct lb_world *w);

/* A loss of the table with what it needs: activations of both teachers at the final state or at layer 1, or
 * attention. */
void lb_world_add(struct lb_world *w, const struct lb_loss *loss, enum lb_target_lane lane);

/* Whether differences of its value tell its gradient: not at the kinks of absolute values (tvd), of which a
 * batch has many, nor where constants are made of the student's numbers (akl). These are held against
 * differences row by row (test_grad_losses.c). */
bool lb_world_smooth(const struct lb_loss *loss);

/* Means of probabilities; of logits for losses on these. */
const struct lb_mixture *lb_world_mean(const struct lb_loss *loss);

bool lb_world_serves(enum lb_target_lane lane, const struct lb_loss *loss);

/* One step, always of the same draws: its loss; its gradients are the student's. */
double lb_world_run(struct lb_world *w);

/* A copy of the student's gradients [n], to be freed. */
float *lb_world_gradients(struct lb_world *w, size_t *n);
/* |a - b| / |a|; a is not 0 altogether. */
double lb_world_apart(const float *a, const float *b, size_t n);
/* That of a loss's gradients by the mean of probabilities and by that of losses. */
double lb_world_means_apart(const char *loss, enum lb_target_lane lane, uint64_t seed);

/* Compares as said above; the largest relative error. Frees the world. whole: its losses reach every tensor.
 */
double lb_world_check(const char *name, struct lb_world *w, bool whole);

/* The same of a new world; what it comes to is told of the loss, else of the mixture. */
void lb_world_check_new(const char *name, const struct lb_mixture *mixture, enum lb_target_lane lane,
                        bool tied, const struct lb_loss *only);

#endif
