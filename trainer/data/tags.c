#include "trainer/data/parts.h"

#include "common/base/mem.h"

#include <string.h>

int lb_dataset_take_tag(struct lb_dataset *data, const char *tag) {
    if (tag == NULL) {
        return -1;
    }
    for (int i = 0; i < data->n_tags; i++) {
        if (strcmp(data->tags[i], tag) == 0) {
            return i;
        }
    }
    char **tags = lb_realloc_array(data->tags, (size_t)data->n_tags + 1, sizeof *tags);
    if (tags == NULL) {
        return -2;
    }
    data->tags = tags;
    int64_t *bytes = lb_realloc_array(data->tag_bytes, (size_t)data->n_tags + 1, sizeof *bytes);
    if (bytes == NULL) {
        return -2;
    }
    data->tag_bytes = bytes;
    char *copy = lb_strdup(tag);
    if (copy == NULL) {
        return -2;
    }
    tags[data->n_tags] = copy;
    bytes[data->n_tags] = 0;
    return data->n_tags++;
}
