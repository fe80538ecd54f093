/* Files of a model's folder that are read by their place in it. The first byte chooses: c
 * tokenizer_config.json, s special_tokens_map.json, j chat_template.jinja, g generation_config.json, v
 * vocab_map.json, i model.safetensors.index.json, m modules.json (and behind a NUL 1_Pooling/config.json).
 * What is refused is refused by the folder's name; what is accepted can be used. */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/formats/safetensors.h"
#include "common/model/family.h"
#include "common/text/beside.h"
#include "common/text/trim.h"
#include "tests/support/safetensors.h"
#include "tests/support/tiny_tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/lb-fuzz-folder-XXXXXX";

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

static void put(const char *name, const void *bytes, size_t len) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    require(file != NULL && fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

static void take_away(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)remove(path);
}

static void remove_folder(void) {
    require(lb_remove_tree(dir, NULL) == LB_OK);
}

/* A tokenizer, and two shards of one tensor each. */
static void make_folder(void) {
    static const float values[2] = {1, 2};
    struct lb_buf buf;
    char path[128];
    require(mkdtemp(dir) != NULL && atexit(remove_folder) == 0);
    snprintf(path, sizeof path, "%s/1_Pooling", dir);
    require(lb_mkdirs(path, NULL) == LB_OK);
    lb_buf_init(&buf, 1 << 16);
    tiny_tokenizer_adding(&buf, NULL, 0, TINY_GPT2 TINY_BEGINS, "", TINY_BOS);
    put("tokenizer.json", buf.data, buf.len);
    for (int i = 0; i < 2; i++) {
        struct lb_tensor t = {
            .name = i == 0 ? "a" : "b", .dtype = LB_F32, .n_dims = 1, .dim = {2}, .bytes = sizeof values};
        t.data = values;
        lb_buf_reset(&buf);
        require(encode_safetensors(&buf, &t, 1, NULL, 0, NULL) == LB_OK);
        put(i == 0 ? "1.safetensors" : "2.safetensors", buf.data, buf.len);
    }
    lb_buf_finish(&buf);
}

static void check(enum lb_status status, const struct lb_detail *detail) {
    require(status == detail->code);
    require(status == LB_OK || strstr(detail->text, dir) != NULL);
}

static void open_tokenizer(bool with_map) {
    struct lb_tokenizer *t = NULL;
    struct lb_vocab_map *map = NULL;
    struct lb_detail detail = {0};
    enum lb_status status = lb_tokenizer_open(dir, &t, &detail);
    check(status, &detail);
    if (status == LB_OK && with_map) {
        status = lb_vocab_map_open(dir, t, &map, &detail);
        check(status, &detail);
        for (int32_t i = 0; map != NULL && i < map->n; i++) {
            require(lb_vocab_map_find(map, map->kept[i]) == i);
        }
    } else if (status == LB_OK) {
        struct lb_buf config;
        json_t *object = NULL;
        lb_buf_init(&config, (size_t)1 << 24);
        require(!lb_tokenizer_chat_template(t) == !lb_tokenizer_chat_template_from(t));
        require(lb_tokenizer_config(t, &config, NULL) == LB_OK);
        require(lb_json_parse_loose(config.data, config.len, 0, "again", &object, NULL) == LB_OK);
        json_decref(object);
        lb_buf_finish(&config);
    }
    lb_vocab_map_destroy(map);
    lb_tokenizer_destroy(t);
}

static void open_index(void) {
    char path[128];
    struct lb_safetensors *file = NULL;
    struct lb_detail detail = {0};
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    check(lb_safetensors_open(path, &file, &detail), &detail);
    for (size_t i = 0; file != NULL && i < lb_safetensors_count(file); i++) {
        const struct lb_tensor *t = lb_safetensors_get(file, i);
        require(t->bytes == 8 && ((const float *)t->data)[1] == 2 && lb_safetensors_find(file, t->name) == t);
    }
    lb_safetensors_destroy(file);
}

static void open_modules(const uint8_t *data, size_t size) {
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    size_t len = nul != NULL ? (size_t)(nul - data) : size;
    struct lb_sentence sentence = {LB_POOL_NONE, false};
    struct lb_detail detail = {0};
    put("modules.json", data, len);
    put("1_Pooling/config.json", data + size - (nul != NULL ? size - len - 1 : 0),
        nul != NULL ? size - len - 1 : 0);
    check(lb_sentence_read(dir, &sentence, &detail), &detail);
    take_away("modules.json");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct {
        char letter;
        const char *name;
    } files[] = {{'c', "tokenizer_config.json"}, {'s', "special_tokens_map.json"},
                 {'j', "chat_template.jinja"},   {'g', "generation_config.json"},
                 {'v', "vocab_map.json"},        {'i', "model.safetensors.index.json"}};
    static bool made;
    if (!made) { /* what mkdtemp chooses may end with an X too */
        make_folder();
        made = true;
    }
    if (size > 0 && data[0] == 'm') {
        open_modules(data + 1, size - 1);
    }
    for (size_t i = 0; size > 0 && i < sizeof files / sizeof *files; i++) {
        if (data[0] == files[i].letter) {
            put(files[i].name, data + 1, size - 1);
            data[0] == 'i' ? open_index() : open_tokenizer(data[0] == 'v');
            take_away(files[i].name);
        }
    }
    return 0;
}
