/* safetensors: u64 header length, JSON header, tensors without holes. Read from a map or from memory, write
 * atomically. Specification: huggingface/safetensors, README "Format". */
#ifndef LB_FORMATS_SAFETENSORS_H
#define LB_FORMATS_SAFETENSORS_H

#include "common/base/buf.h"
#include "common/base/status.h"
#include "common/nn/tensor.h"

struct lb_safetensors;

/* Maps and checks the whole header: every tensor's shape against its span, no holes, no overlaps, no
 * duplicates. A folder's model.safetensors.index.json may be given instead: its shards are opened as one,
 * with those tensors that it lists, each from the shard that it names. */
LB_NODISCARD enum lb_status lb_safetensors_open(const char *path, struct lb_safetensors **out,
                                                struct lb_detail *detail);
/* The same over bytes that the caller keeps until destroy; what names them in errors. */
LB_NODISCARD enum lb_status lb_safetensors_parse(const void *bytes, size_t len, const char *what,
                                                 struct lb_safetensors **out, struct lb_detail *detail);
void lb_safetensors_destroy(struct lb_safetensors *file);
/* The first file that was written to since it was opened (lb_map_written); NULL. */
const char *lb_safetensors_written(const struct lb_safetensors *file);

/* Tensors in the order of their data (shards by name); views valid until destroy, aligned to their elements
 * even where the file is not. */
size_t lb_safetensors_count(const struct lb_safetensors *file);
const struct lb_tensor *lb_safetensors_get(const struct lb_safetensors *file, size_t i);
/* NULL when there is none of that name. */
const struct lb_tensor *lb_safetensors_find(const struct lb_safetensors *file, const char *name);
/* A value of __metadata__, or NULL. */
const char *lb_safetensors_metadata(const struct lb_safetensors *file, const char *key);

/* metadata: pairs key, value, ... (n_metadata pairs); tensors in the order given; data aligned to 64 within
 * the file. */
LB_NODISCARD enum lb_status lb_safetensors_write(const char *path, const struct lb_tensor *tensors, size_t n,
                                                 const char *const *metadata, size_t n_metadata,
                                                 struct lb_detail *detail);
/* What stands in a file before the tensors, into an empty buffer: the length, the JSON, and the spaces after
 * it that align the data. The tensors' data must be there but is not read. */
LB_NODISCARD enum lb_status lb_safetensors_header(struct lb_buf *header, const struct lb_tensor *tensors,
                                                  size_t n, const char *const *metadata, size_t n_metadata,
                                                  struct lb_detail *detail);

#endif
