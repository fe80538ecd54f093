/* Models that have a text model of ours within, beside what sees or hears: their folders open as that text
 * model, and a note says what is left out. Private to common/model. */
#ifndef LB_MODEL_LARGER_H
#define LB_MODEL_LARGER_H

#include "common/formats/safetensors.h"
#include "common/model/family.h"

/* What names of tensors begin with in the larger model's files, and in the text model's own. */
struct lb_larger_name {
    const char *there, *here;
};

/* A larger model. Its form has the keys beside the text model's; a key that both have counts there. */
struct lb_larger {
    struct lb_config_form form;
    const char *part, *part_key; /* the text model's model_type, and the object that is its config */
    json_t *(*missing)(void);    /* keys that the object may lack, though the text model's own may not */
    const struct lb_larger_name *names; /* up to a NULL */
    const char *const *others;          /* what names of other parts' tensors begin with; up to a NULL */
};

/* The larger model whose config.json this is; NULL: none of them. */
const struct lb_larger *lb_larger_of(const json_t *object);
/* As lb_config_read, of the text model; own: the form of larger->part. */
LB_NODISCARD enum lb_status lb_larger_read(const struct lb_larger *larger, const struct lb_config_form *own,
                                           const json_t *object, const char *what, struct lb_config *out,
                                           struct lb_notes *notes, struct lb_detail *detail);
/* The tensor that the text model calls so; NULL: there is none. */
const struct lb_tensor *lb_larger_tensor(const struct lb_larger *larger, const struct lb_safetensors *file,
                                         const char *name);
/* What the text model calls a tensor of the larger one's files: name itself, or a text in own. */
const char *lb_larger_own_name(const struct lb_larger *larger, const char *name, char own[LB_WEIGHT_NAME]);
/* Whether the tensor is of another part. */
bool lb_larger_leaves_out(const struct lb_larger *larger, const char *name);

#endif
