/* Whose names a server's tensors have: as a recipe says it, and as it was found. */
#ifndef LB_WIRE_NAMING_H
#define LB_WIRE_NAMING_H

#include "proto/datatype.h"
#include "proto/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An input that is the same in every request. */
struct lb_named_value {
    const char *name, *value; /* a number, true or false, as text */
};

/* As recipes say it (teachers.K.names and extra_inputs). NULL: there is no such tensor. */
struct lb_naming {
    const char *input_ids; /* never NULL */
    const char *lengths, *attention_mask;
    const char *logits; /* never NULL */
    const struct lb_named_value *extra;
    size_t n_extra;
};

/* What goes into an input. */
enum lb_named_role { LB_NAMED_IDS, LB_NAMED_LENGTHS, LB_NAMED_MASK, LB_NAMED_VALUE, LB_N_NAMED_ROLES };

#define LB_NAMED_INPUTS 24
#define LB_NAMED_BYTES 64 /* of a name or value, with its NUL */

/* As the server has them. */
struct lb_named {
    char metadata[65]; /* SHA-256 of all that it says of the model */
    char version[129]; /* that answered the fixed question */
    char logits[LB_NAMED_BYTES];
    bool binary;  /* tensors travel as bytes, else as numbers in JSON */
    int n_inputs; /* 0: the teacher is none of these */
    struct lb_named_input {
        char name[LB_NAMED_BYTES], value[LB_NAMED_BYTES]; /* value "" but for LB_NAMED_VALUE */
        uint8_t role, datatype, n_dims;                   /* those before the last are 1 */
    } inputs[LB_NAMED_INPUTS];
};

#endif
