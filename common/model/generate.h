/* Text generation with a KV cache. */
#ifndef LB_MODEL_GENERATE_H
#define LB_MODEL_GENERATE_H

#include "common/model/model.h"
#include "common/text/tokenizer.h"

struct lb_generate_args {
    int64_t max_new_tokens;
    double temperature; /* 0: greedy */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    int32_t eos;        /* stops; -1: never */
    uint64_t seed;
};

/* Called with each new id; a status other than LB_OK stops and is returned. */
typedef enum lb_status (*lb_generate_fn)(void *context, int32_t id);

/* prompt [n], n > 0. Stops at eos (not reported), max_new_tokens or the model's maximum length. */
LB_NODISCARD enum lb_status lb_generate(const struct lb_model *model, const int32_t *prompt, int64_t n,
                                        const struct lb_generate_args *args, lb_generate_fn fn, void *context,
                                        struct lb_detail *detail);

#endif
