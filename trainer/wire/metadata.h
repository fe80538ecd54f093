/* What servers of the Open Inference Protocol say of what they serve: their models, a model's metadata, its
 * output head, its tokenizer. Part of the dialect oip; `limbeck probe` asks for the list of models.
 *
 * One request each, no retries: those who call decide what a failure means. Any thread; stop (may be NULL)
 * ends a wait with LB_E_CANCELLED.
 */
#ifndef LB_WIRE_METADATA_H
#define LB_WIRE_METADATA_H

#include "common/base/buf.h"
#include "trainer/wire/answer.h"
#include "trainer/wire/contact.h"

/* The models that the server lists (POST /v2/repository/index): calls each(user, name, version, state) for
 * every one. */
LB_NODISCARD enum lb_status lb_metadata_models(const struct lb_contact *contact,
                                               void (*each)(void *user, const char *name, const char *version,
                                                            const char *state),
                                               void *user, struct lb_detail *detail);
/* The name of the only model there; LB_E_ARG naming them when there are several, LB_E_NOTFOUND when there is
 * none. */
LB_NODISCARD enum lb_status lb_metadata_only_model(const struct lb_contact *contact, char out[LB_MAX_NAME],
                                                   struct lb_detail *detail);
/* Model metadata (GET /v2/models/M) as JSON bytes appended to text, and read into out. LB_E_FORMAT when they
 * are another model's. */
LB_NODISCARD enum lb_status lb_metadata_info(const struct lb_contact *contact, const char *model,
                                             struct lb_buf *text, struct lb_teacher_info *out,
                                             struct lb_detail *detail);
/* Reads metadata as they arrived or were kept: as lb_info_parse, and LB_E_FORMAT when they don't end with
 * their digest. */
LB_NODISCARD enum lb_status lb_info_read(const void *text, size_t len, const char *what,
                                         struct lb_teacher_info *out, struct lb_detail *detail);
/* Reads metadata; what names their source. LB_E_FORMAT when they are not those of a Limbeck teacher. */
LB_NODISCARD enum lb_status lb_info_parse(const void *text, size_t len, const char *what,
                                          struct lb_teacher_info *out, struct lb_detail *detail);

/* "/v2/models/M[/versions/F]SUFFIX" on the heap (lb_free), names escaped; fingerprint NULL: without version.
 * NULL: out of memory. */
char *lb_metadata_path(const char *model, const char *fingerprint, const char *suffix);

/* Whether a head's safetensors end with the digest of all bytes before it; LB_E_FORMAT when they don't. */
LB_NODISCARD enum lb_status lb_teacher_head_arrived(const void *bytes, size_t len, const char *what,
                                                    struct lb_detail *detail);
/* Reads a head's safetensors into FP32; checked against what info tells. lb_teacher_head_finish frees it. */
LB_NODISCARD enum lb_status lb_teacher_head_parse(const void *bytes, size_t len,
                                                  const struct lb_teacher_info *info, const char *what,
                                                  struct lb_teacher_head *out, struct lb_detail *detail);

#endif
