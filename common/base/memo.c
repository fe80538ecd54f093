#include "common/base/memo.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <link.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define FRESH_SECONDS 2
#define MAX_BYTES 4096

static atomic_bool distrusted;

void lb_memo_distrust(void) {
    atomic_store(&distrusted, true);
}

bool lb_memo_file(struct lb_sha256 *hash, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0 || st.st_ctim.tv_sec + FRESH_SECONDS >= time(NULL)) {
        return false;
    }
    const uint64_t numbers[] = {(uint64_t)st.st_dev,          (uint64_t)st.st_ino,
                                (uint64_t)st.st_size,         (uint64_t)st.st_mtim.tv_sec,
                                (uint64_t)st.st_mtim.tv_nsec, (uint64_t)st.st_ctim.tv_sec,
                                (uint64_t)st.st_ctim.tv_nsec};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        lb_sha256_u64(hash, numbers[i]);
    }
    return true;
}

struct program {
    struct lb_sha256 *hash;
    bool named;
};

/* One object of the process: "" is the program itself; what the kernel maps has no path. */
static int add_object(struct dl_phdr_info *object, size_t size, void *data) {
    struct program *program = data;
    (void)size;
    if (object->dlpi_name == NULL || object->dlpi_name[0] == '\0') {
        program->named = program->named && lb_memo_file(program->hash, "/proc/self/exe");
    } else if (object->dlpi_name[0] == '/') {
        program->named = program->named && lb_memo_file(program->hash, object->dlpi_name);
    }
    return 0;
}

bool lb_memo_program(struct lb_sha256 *hash) {
    struct program program = {hash, true};
    (void)dl_iterate_phdr(add_object, &program);
    return program.named;
}

/* The file's path on the heap; NULL where there is no cache folder. */
static char *path_of(const char *kind, const char *key, bool make) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    struct lb_buf path;
    lb_buf_init(&path, MAX_BYTES);
    if (cache != NULL && cache[0] == '/') {
        lb_buf_printf(&path, "%s/limbeck", cache);
    } else if (home != NULL && home[0] == '/') {
        lb_buf_printf(&path, "%s/.cache/limbeck", home);
    } else {
        return NULL;
    }
    char *dir = lb_buf_take(&path, NULL), *file = NULL;
    if (dir != NULL && (!make || lb_mkdirs(dir, NULL) == LB_OK)) {
        lb_buf_init(&path, MAX_BYTES);
        lb_buf_printf(&path, "%s/%s-%s", dir, kind, key);
        file = lb_buf_take(&path, NULL);
    }
    lb_free(dir);
    return file;
}

bool lb_memo_get(const char *kind, const char key[LB_SHA256_HEX], char *out, size_t out_size) {
    char *path = atomic_load(&distrusted) ? NULL : path_of(kind, key, false);
    struct lb_buf text;
    lb_buf_init(&text, MAX_BYTES);
    bool found = path != NULL && lb_file_read(path, &text, NULL) == LB_OK && text.len > 0 &&
                 text.len < out_size && memchr(text.data, '\0', text.len) == NULL;
    if (found) {
        memcpy(out, text.data, text.len);
        out[text.len] = '\0';
    }
    lb_free(path);
    lb_buf_finish(&text);
    return found;
}

void lb_memo_put(const char *kind, const char key[LB_SHA256_HEX], const char *text) {
    char *path = path_of(kind, key, true);
    if (path != NULL) {
        enum lb_status ignored = lb_file_replace(path, text, strlen(text), NULL);
        (void)ignored;
    }
    lb_free(path);
}
