/* A safetensors file, or a sharded model, as parsed. Private to common/formats: safetensors.c parses one
 * file, safetensors_index.c joins those that an index names. */
#ifndef LB_FORMATS_SAFETENSORS_FILE_H
#define LB_FORMATS_SAFETENSORS_FILE_H

#include "common/base/file.h"
#include "common/formats/safetensors.h"

#define LB_SAFETENSORS_MAX_HEADER 100000000 /* bytes; the format's own limit */

/* One file. A sharded model has several. */
struct lb_safetensors_part {
    struct lb_map map;
    struct lb_tensor *tensors; /* in the order of their data */
    size_t n;
    char *strings;         /* what names and metadata point into */
    const char **metadata; /* key, value, ... */
    size_t n_metadata;
    uint8_t *aligned; /* copies of those tensors that the file holds at unaligned addresses */
};

struct lb_safetensors {
    struct lb_safetensors_part *parts;
    size_t n_parts;
    struct lb_tensor *tensors; /* of all parts */
    size_t n;
    const struct lb_tensor **by_name;
};

/* Room for n_parts parts, all empty; NULL when out of memory. */
struct lb_safetensors *lb_safetensors_create(size_t n_parts);
/* Maps and parses one file into an empty part. */
LB_NODISCARD enum lb_status lb_safetensors_part_open(struct lb_safetensors_part *part, const char *path,
                                                     struct lb_detail *detail);
/* Joins the parsed parts: one list, one order by name. */
LB_NODISCARD enum lb_status lb_safetensors_join(struct lb_safetensors *file, const char *what,
                                                struct lb_detail *detail);
/* Opens all shards that a model.safetensors.index.json names. */
LB_NODISCARD enum lb_status lb_safetensors_open_index(const char *path, struct lb_safetensors **out,
                                                      struct lb_detail *detail);

#endif
