/* What a recipe means for one student and its teachers: which losses run, on which activations, what each
 * teacher is asked, which projections are learned. Made once, before the first step; everything that does not
 * fit is found here.
 */
#ifndef LB_LEARN_PLAN_H
#define LB_LEARN_PLAN_H

#include "common/model/model.h"
#include "trainer/data/dataset.h"
#include "trainer/data/reading.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"
#include "trainer/loss/target.h"
#include "trainer/teachers/teachers.h"

#define LB_MAX_PAIRS 64

/* One pair of activations, student's and one teacher's. */
struct lb_pair {
    unsigned loss;     /* index into lb_plan.losses */
    unsigned teacher;  /* index */
    struct lb_tap tap; /* of the student */
    bool final;        /* the student's final state instead of the tap */
    bool by_head;      /* it is weighed by what the teacher's head makes of the student's final state */
    bool once;         /* which is one row a sequence: of classifiers of texts */
    enum lb_output_kind kind;
    int layer; /* of the teacher's output */
    int64_t student_width, teacher_width;
    char projection[64]; /* name of the learned weight; "": none, widths agree */
};

struct lb_plan {
    const struct lb_recipe *recipe;
    const struct lb_mixture *mixture;
    int64_t total_steps; /* of the run, which the caller knows: what teachers' weights that anneal follow */
    unsigned n_teachers;
    const struct lb_teacher_info *info[LB_MAX_TEACHERS];
    const struct lb_teacher_head *head[LB_MAX_TEACHERS]; /* NULL unless the lane needs it */
    const struct lb_vocab_map *map[LB_MAX_TEACHERS]; /* NULL: the student has the teacher's own vocabulary;
                                                        else the part of it that the student has */
    bool kept[LB_MAX_TEACHERS];     /* it was sent the map: its distributions come in the student's ids */
    bool unlike[LB_MAX_TEACHERS];   /* it reads the texts in its own tokens, not in the student's */
    bool prompted[LB_MAX_TEACHERS]; /* it reads another prompt before a sample's completion */
    bool apart[LB_MAX_TEACHERS]; /* no loss on distributions learns from it, nor is it weighed by its own */
    struct lb_reader *reader[LB_MAX_TEACHERS]; /* of those unlike, see lb_plan_readers */
    struct lb_tokenizer *tokenizer[LB_MAX_TEACHERS];
    /* Of those, where a loss is on what is aligned: the tokens that both have. */
    struct lb_common {
        int64_t n, n_own; /* ids of the teacher, of the student */
        int32_t *own_of;  /* [n] the student's id of the same text, -1: none */
        uint8_t *has;     /* [n_own] whether the teacher has it */
    } common[LB_MAX_TEACHERS];
    struct lb_ask_spec spec[LB_MAX_TEACHERS];
    size_t n_losses;
    struct {
        const struct lb_loss *loss;
        struct lb_loss_args args; /* temperature resolved; at the start, where it anneals */
        struct lb_annealing {
            enum lb_anneal kind;
            int64_t steps;              /* 0: all */
            double weight, temperature; /* at the end */
        } annealing;
        char name[64]; /* in metrics: the function; a further one of it with its place in loss_functions */
        unsigned set;  /* of the teachers that it learns from: of sets */
        bool once;     /* its states are one row a sequence */
        unsigned off;  /* whose texts it is not on: bits 1 << enum lb_source */
    } losses[LB_MAX_LOSSES];
    /* Teachers whose weights sum to 1 together, as bits; 0: all. The first is all. */
    uint32_t sets[LB_MAX_LOSSES + 1];
    unsigned n_sets;                                /* besides the first */
    bool on_label, on_target, on_chunk, on_aligned; /* any such loss */
    int64_t n_logits;                               /* columns of the student's */
    size_t n_pairs;
    struct lb_pair pairs[LB_MAX_PAIRS];
};

/* Adds the projections to the student (lb_model_extend). recipe: one that was read, so that it makes sense by
 * itself. teachers may be NULL when there are none.
 * tokenizer_fingerprint: the student's, "" when it has none; map: of a trimmed one, NULL: it is none; it
 * outlives plan and teachers. Teachers that have neither this tokenizer nor the map's whole one are refused;
 * those with the whole one are asked through the map. One with another tokenizer is taken where nothing but
 * losses on chunks, or on what is aligned, learns from it; it is unlike then. */
LB_NODISCARD enum lb_status lb_plan_make(const struct lb_recipe *recipe, struct lb_model *student,
                                         const char *tokenizer_fingerprint, const struct lb_vocab_map *map,
                                         struct lb_teachers *teachers, struct lb_plan *out,
                                         struct lb_detail *detail);
/* Fetches the tokenizers of those that are unlike, and makes readers of data's rows. tokenizer (the
 * student's) is borrowed. What the plan then owns, finish frees. */
LB_NODISCARD enum lb_status lb_plan_readers(struct lb_plan *plan, const struct lb_tokenizer *tokenizer,
                                            const struct lb_dataset *data, struct lb_teachers *teachers,
                                            struct lb_detail *detail);
/* Accepts NULL, and one that was not made. */
void lb_plan_finish(struct lb_plan *plan);
/* What the mixture weighs by: bits of enum lb_mixture_needs. */
unsigned lb_plan_needs(const struct lb_plan *plan);
/* The recipe's weights [teachers] at a sample, by the step that its number is of. */
void lb_plan_given(const struct lb_plan *plan, const struct lb_sample *sample, double *out);
/* weights.c: what a mixture of random teachers draws for a sample, in [0, 1): a function of seed and the
 * sample's number, or its micro-batch's. */
double lb_plan_draw(const struct lb_plan *plan, const struct lb_sample *sample);
/* Whether teacher k is in the set. */
bool lb_plan_in_set(const struct lb_plan *plan, unsigned set, unsigned k);
/* Whether loss l is on texts of that source; where it is not, they count as positions of no loss. */
static inline bool lb_plan_on(const struct lb_plan *plan, size_t l, enum lb_source source) {
    return (plan->losses[l].off >> source & 1) == 0;
}
/* Whether loss l learns from teacher k. */
bool lb_plan_learns(const struct lb_plan *plan, size_t l, unsigned k);
/* The sample's readings [n_teachers] for teachers that are unlike, in arena; left NULL where none is. A
 * conversation that a teacher's template does not write has nothing to compare. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_plan_read(const struct lb_plan *plan, struct lb_sample *sample,
                                         struct lb_arena *arena, struct lb_detail *detail);
/* Answers [n * teachers] about samples that were read with another prompt become ones about the samples' own
 * positions: copies in arena, in place of *answers; else nothing changes. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_plan_align(const struct lb_plan *plan, const struct lb_sample *samples,
                                          int64_t n, const struct lb_answer *const **answers,
                                          struct lb_arena *arena, struct lb_detail *detail);
/* Whether any teacher is asked through a map. */
bool lb_plan_trimmed(const struct lb_plan *plan);
/* Which teacher is asked about which of n samples: those of whom a loss on that text learns, into wanted [n *
 * n_teachers]. */
void lb_plan_wanted(const struct lb_plan *plan, const struct lb_dataset *data,
                    const struct lb_sample *samples, int64_t n, bool *wanted);

#endif
