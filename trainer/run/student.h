/* The student of a run: one that the recipe starts from, or a new one with the tokenizer's vocabulary. */
#ifndef LB_RUN_STUDENT_H
#define LB_RUN_STUDENT_H

#include "common/model/model.h"
#include "common/text/tokenizer.h"
#include "trainer/recipe/recipe.h"
#include "trainer/teachers/teachers.h"

/* tokenizer: NULL for images. LB_E_MISMATCH: the tokenizer has more tokens than the model that is given. */
LB_NODISCARD enum lb_status lb_student_open(const struct lb_recipe *recipe,
                                            const struct lb_tokenizer *tokenizer, struct lb_model **out,
                                            struct lb_detail *detail);
/* Replaces a new student by one whose vocabulary is as long as the teachers', where they read the same
 * tokenizer and all are padded to one length beyond it: distributions are then over the same rows. */
LB_NODISCARD enum lb_status lb_student_pad(const struct lb_recipe *recipe,
                                           const struct lb_tokenizer *tokenizer,
                                           const struct lb_teachers *teachers, struct lb_model **student,
                                           struct lb_detail *detail);

/* Gives a new classifier of texts the names that the first teacher of as many classes has for its. */
LB_NODISCARD enum lb_status lb_student_name_labels(const struct lb_recipe *recipe,
                                                   const struct lb_teachers *teachers,
                                                   struct lb_model *student, struct lb_detail *detail);

/* Trains nothing that frozen_parameters name, after the losses have added what they bring along. LB_E_ARG
 * names a pattern that matches nothing, or says that nothing is left. */
LB_NODISCARD enum lb_status lb_student_freeze(const struct lb_recipe *recipe, struct lb_model *student,
                                              struct lb_detail *detail);

/* Whether the student reads data as the recipe gives them: encoders read whole texts, and without a head
 * predict none that could be evaluated. LB_E_ARG names the key. */
LB_NODISCARD enum lb_status lb_student_reads(const struct lb_recipe *recipe, const struct lb_model *student,
                                             struct lb_detail *detail);

#endif
