/* Files of training data that are no text: a table, token shards and their index. The first byte says which
 * the rest is: rows whose numbers can be read and are within the student's, or one line that names the file.
 */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/dataset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VOCABULARY 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char folder[] = "/tmp/lb-fuzz-data-XXXXXX";
static struct lb_tokenizer *tokenizer;
static struct lb_recipe recipe = {.directory = folder, .max_length = 4};

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

static void remove_folder(void) {
    if (lb_remove_tree(folder, NULL) != LB_OK) {
        fprintf(stderr, "fuzz_data: %s stays\n", folder);
    }
    lb_tokenizer_destroy(tokenizer);
    tokenizer = NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    struct lb_buf json;
    lb_buf_init(&json, 1 << 16);
    lb_buf_append_str(
        &json,
        "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<eos>\",\"single_word\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],\"normalizer\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<eos>\":0");
    for (int id = 1; id < VOCABULARY; id++) {
        lb_buf_printf(&json, ",\"x%d\":%d", id, id);
    }
    lb_buf_append_str(&json, "},\"merges\":[]}}");
    require(lb_tokenizer_parse(json.data, json.len, "numbers", &tokenizer, NULL) == LB_OK);
    lb_buf_finish(&json);
    require(mkdtemp(folder) != NULL);
    atexit(remove_folder);
    recipe.student.config.num_labels = 3;
    return 0;
}

static void write_file(const char *name, const void *bytes, size_t len) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    require(file != NULL && fwrite(bytes, 1, len, file) == len);
    require(fclose(file) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t ids[26] = {1, 0, 2, 0, 3, 0, 0, 0, 4, 0, 5, 0, 0,
                                    0, 1, 1, 6, 0, 7, 0, 8, 0, 9, 0, 0, 0};
    struct lb_recipe_dataset entry = {.path = "d.csv", .type = LB_DATA_CSV};
    struct lb_dataset *rows = NULL;
    struct lb_detail detail = {0};
    char kind = size > 0 ? (char)data[0] : 't';
    data += size > 0;
    size -= size > 0;
    if (kind == 't') {
        write_file("d.csv", data, size);
    } else {
        entry = (struct lb_recipe_dataset){.path = "d.bin", .type = LB_DATA_TOKENS};
        char index[64];
        snprintf(index, sizeof index, "%s/d.idx", folder);
        (void)unlink(index);
        write_file("d.bin", kind == 'i' ? ids : data, kind == 'i' ? sizeof ids : size);
        if (kind == 'i') {
            write_file("d.idx", data, size);
        }
    }
    enum lb_status status = lb_dataset_open(&recipe, &entry, 1, true, tokenizer, 0, NULL, &rows, &detail);
    require((status == LB_OK) == (detail.text[0] == '\0'));
    for (int64_t i = 0; status == LB_OK && i < lb_dataset_count(rows); i++) {
        struct lb_sample s;
        require(lb_dataset_get(rows, i, &s, NULL) == LB_OK);
        for (int64_t t = 0; s.ids != NULL && t <= s.n; t++) {
            require(s.ids[t] >= 0 && s.ids[t] < VOCABULARY);
        }
        for (int64_t j = 0; s.features != NULL && j < lb_dataset_features(rows); j++) {
            require(isfinite(s.features[j]));
        }
        require(s.features == NULL || (s.label >= 0 && s.label < 3));
    }
    lb_dataset_destroy(rows);
    return 0;
}
