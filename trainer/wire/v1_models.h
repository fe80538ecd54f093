/* GET /v1/models, which servers of OpenAI's kind have (vLLM, SGLang, llama.cpp, llama-cpp-python): the models
 * there. For dialects. */
#ifndef LB_WIRE_V1_MODELS_H
#define LB_WIRE_V1_MODELS_H

#include "proto/limits.h"
#include "trainer/wire/dialect.h"

#define LB_V1_MODELS "/v1/models"

struct lb_v1_model {
    char name[LB_MAX_NAME];   /* what people call it: its id, of a path the last part */
    char id[LB_MAX_MODEL_ID]; /* by which it must be asked */
    size_t n_models;          /* of the list */
    int64_t max_length;       /* max_model_len, or n_ctx of llama.cpp's meta; 0: not told */
    int64_t vocab_size;       /* n_vocab of that; 0: not told */
};

/* Finds the model in the list that the server answered with; wanted NULL: the only one. One whose id is
 * a path goes by its last part as well. LB_E_UNAVAILABLE:
 * none is there yet; LB_E_NOTFOUND: none of that name; LB_E_ARG names them where there are several;
 * LB_E_FORMAT. where: teacher and address, for errors. */
LB_NODISCARD enum lb_status lb_v1_model_find(const void *text, size_t len, const char *wanted,
                                             const char *where, struct lb_v1_model *out,
                                             struct lb_detail *detail);
/* Asks for the list and finds it. */
LB_NODISCARD enum lb_status lb_v1_model_ask(const struct lb_contact *contact, const char *wanted,
                                            struct lb_v1_model *out, struct lb_detail *detail);
/* The same for a dialect's same: LB_E_MISMATCH where the server has no model of the known one's name. */
LB_NODISCARD enum lb_status lb_v1_model_again(const struct lb_teacher_info *known, const void *text,
                                              size_t len, const char *where, struct lb_v1_model *out,
                                              char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail);
/* LB_E_MISMATCH: a server that tells no more than that list serves another model than the known one. */
enum lb_status lb_v1_model_other(const struct lb_teacher_info *known, const char *where,
                                 struct lb_detail *detail);
/* The path of a dialect that has that list, ask for questions, and serves neither heads nor tokenizers, of
 * which no_head and no_tokenizer say so. */
LB_NODISCARD enum lb_status lb_v1_path(const struct lb_teacher_info *info, enum lb_path which,
                                       const char *ask, const char *no_head, const char *no_tokenizer,
                                       char **out, struct lb_detail *detail);
/* Calls each for every model of the list, as a dialect's models does. */
LB_NODISCARD enum lb_status lb_v1_models(const struct lb_contact *contact,
                                         void (*each)(void *user, const char *name, const char *version,
                                                      const char *state),
                                         void *user, struct lb_detail *detail);

#endif
