/* Teachers behind any server of the Open Inference Protocol, whose tensors a recipe names: part of the
 * dialect oip, of servers that are no limbeckd (TensorRT-LLM's context_logits over Triton, for one).
 *
 * One sequence a request: its ids, what else the recipe names, and inputs that are the same in every request.
 * Datatypes and shapes are those of the server's metadata, which may have a batch dimension or none. All
 * logits of the sequence come back, and of them is made here whatever a run asks for, with limbeckd's own
 * functions: equal logits give equal bits. Identity: stated.h, with all that the metadata say. Pure but for
 * lb_named_info: any thread.
 */
#ifndef LB_WIRE_NAMED_H
#define LB_WIRE_NAMED_H

#include "trainer/wire/dialect.h"

/* Asks a server what it is and the fixed question. Errors begin with the recipe's key where one is to blame
 * ("names.logits"). */
LB_NODISCARD enum lb_status lb_named_info(const struct lb_contact *contact, const char *model,
                                          struct lb_buf *text, struct lb_teacher_info *out,
                                          struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_named_info_read(const void *text, size_t len, const char *what,
                                               struct lb_teacher_info *out, struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_named_same(const struct lb_teacher_info *known, const void *text, size_t len,
                                          const char *where, char out_id[LB_MAX_MODEL_ID],
                                          struct lb_detail *detail);

/* The request about one sequence of n ids. out is begun; scratch is used on the way. */
LB_NODISCARD enum lb_status lb_named_ask(const struct lb_named *named, const int32_t *ids, int64_t n,
                                         struct lb_arena *scratch, struct lb_asked *out,
                                         struct lb_detail *detail);
/* The logits of an answer to it, [n, v] behind dimensions of 1, within reply or arena. v 0: any. *out_version
 * is the model's. LB_E_FORMAT, LB_E_MISMATCH: they are not what was asked for. */
LB_NODISCARD enum lb_status lb_named_read(const struct lb_named *named, const char *model,
                                          const struct lb_ask_reply *reply, int64_t n, int64_t v,
                                          struct lb_arena *arena, struct lb_wire_tensor *out,
                                          const char **out_version, struct lb_detail *detail);

/* Whether a number as text, or true or false, is one of the datatype. */
bool lb_named_value_fits(const char *text, enum lb_datatype datatype);

extern const struct lb_dialect lb_dialect_named;

#endif
