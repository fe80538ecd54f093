/* The main of the fuzz targets outside libFuzzer: every file of the corpus folders given as arguments goes
 * through LLVMFuzzerTestOneInput whole, cut off at many lengths, and with a few hundred mutations that are
 * the same in each run. Each input lies in memory of exactly its size, so that the address sanitizer sees the
 * first byte too far.
 */
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

enum {
    MAX_FILE = 64 << 20,
    ALL_PREFIXES = 512, /* files up to this size are cut at every length */
    STEPS = 256,        /* larger ones about this often, and at each of the first and last EDGE lengths */
    EDGE = 64,
    MUTATIONS = 300,
    BYTES_PER_FILE = 32 << 20 /* large files get fewer cuts and mutations: the test stays quick */
};

/* What is being tried, for the message when it ends badly, and where its bytes go then. */
static char current[512];
static const uint8_t *current_data;
static size_t current_size;
static char failed_path[64];

static void say(const char *text) {
    (void)!write(STDERR_FILENO, text, strlen(text));
}

/* Also runs in signal handlers. */
static void tell_what_failed(void) {
    say("replay: failed on ");
    say(current);
    int fd = open(failed_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd >= 0) {
        if (write(fd, current_data, current_size) == (ssize_t)current_size) {
            say(", saved as ");
            say(failed_path);
        }
        close(fd);
    }
    say("\n");
}

static void on_signal(int number) {
    tell_what_failed();
    signal(number, SIG_DFL);
    raise(number);
}

static size_t n_tried;
static uint64_t slowest_ns;
static char slowest[512];

static void try_one(const uint8_t *data, size_t size) {
    /* Not through lb_mem: targets may count or fail its allocations. */
    uint8_t *block = malloc(size > 0 ? size : 1);
    if (block == NULL) {
        say("replay: out of memory\n");
        exit(1);
    }
    uint8_t *exact = size > 0 ? block : block + 1; /* no byte may be read of an empty input either */
    if (size > 0) {
        memcpy(exact, data, size);
    }
    current_data = exact;
    current_size = size;
    uint64_t start = lb_now_ns();
    if (LLVMFuzzerTestOneInput(exact, size) != 0) {
        tell_what_failed();
        exit(1);
    }
    uint64_t spent = lb_now_ns() - start;
    if (spent > slowest_ns) {
        slowest_ns = spent;
        memcpy(slowest, current, sizeof slowest);
    }
    n_tried++;
    free(block);
}

static void try_prefixes(const char *path, const uint8_t *data, size_t size) {
    size_t budget = size > 0 ? BYTES_PER_FILE / size + 1 : STEPS;
    size_t steps = budget < STEPS ? budget : STEPS;
    size_t edge = budget < EDGE ? budget : EDGE;
    size_t step = size <= ALL_PREFIXES ? 1 : size / steps + 1;
    for (size_t len = 0; len < size; len++) {
        if (len % step == 0 || len < edge || size - len <= edge) {
            snprintf(current, sizeof current, "the first %zu bytes of %s", len, path);
            try_one(data, len);
        }
    }
}

/* ---- mutations ---- */

static const uint64_t telling_numbers[] = {0,          1,
                                           2,          7,
                                           16,         32,
                                           64,         127,
                                           128,        255,
                                           256,        32767,
                                           32768,      65535,
                                           65536,      0x7fffffff,
                                           0x80000000, 0xffffffff,
                                           1ull << 32, 1ull << 62,
                                           1ull << 63, UINT64_MAX - 7,
                                           UINT64_MAX};
static const char *const telling_texts[] = {"-1",
                                            "0",
                                            "1e999",
                                            "-0.0",
                                            "null",
                                            "true",
                                            "\"",
                                            "\\",
                                            "\\u0000",
                                            "\\ud800",
                                            "[",
                                            "]",
                                            "{",
                                            "}",
                                            ",",
                                            ":",
                                            "18446744073709551615",
                                            "9223372036854775808",
                                            "4294967296",
                                            "\xff",
                                            "\xed\xa0\x80",
                                            "\xf0\x9f\x98\x80",
                                            "\n"};

static void overwrite(struct lb_rng *rng, uint8_t *data, size_t size) {
    size_t at = lb_rng_below(rng, size);
    switch (lb_rng_below(rng, 4)) {
    case 0:
        data[at] ^= (uint8_t)(1u << lb_rng_below(rng, 8));
        break;
    case 1:
        data[at] = (uint8_t)lb_rng_u64(rng);
        break;
    case 2:
        data[at] = (uint8_t)(data[at] + (lb_rng_below(rng, 2) == 0 ? 1 : -1));
        break;
    default: {
        uint64_t v = telling_numbers[lb_rng_below(rng, sizeof telling_numbers / sizeof *telling_numbers)];
        size_t width = (size_t)1 << lb_rng_below(rng, 4);
        for (size_t i = 0; i < width && at + i < size; i++) {
            data[at + i] = (uint8_t)(v >> (8 * i));
        }
    }
    }
}

static void remove_span(struct lb_rng *rng, struct lb_buf *buf) {
    size_t at = lb_rng_below(rng, buf->len);
    size_t most = buf->len - at < 64 ? buf->len - at : 64;
    size_t n = 1 + lb_rng_below(rng, most);
    memmove(buf->data + at, buf->data + at + n, buf->len - at - n);
    buf->len -= n;
}

static void insert(struct lb_rng *rng, struct lb_buf *buf, const void *bytes, size_t n) {
    size_t at = lb_rng_below(rng, buf->len + 1);
    size_t tail = buf->len - at;
    if (lb_buf_extend(buf, n) != NULL) {
        memmove(buf->data + at + n, buf->data + at, tail);
        memcpy(buf->data + at, bytes, n);
    }
}

static void mutate(struct lb_rng *rng, struct lb_buf *buf) {
    size_t rounds = 1 + lb_rng_below(rng, 4);
    for (size_t i = 0; i < rounds; i++) {
        uint64_t kind = lb_rng_below(rng, 8);
        if (buf->len == 0 || kind == 0) {
            const char *text = telling_texts[lb_rng_below(rng, sizeof telling_texts / sizeof *telling_texts)];
            insert(rng, buf, text, strlen(text));
        } else if (kind == 1) {
            remove_span(rng, buf);
        } else if (kind == 2) {
            uint8_t copy[64]; /* a piece of the input a second time, elsewhere */
            size_t from = lb_rng_below(rng, buf->len);
            size_t most = buf->len - from < sizeof copy ? buf->len - from : sizeof copy;
            size_t n = 1 + lb_rng_below(rng, most);
            memcpy(copy, buf->data + from, n);
            insert(rng, buf, copy, n);
        } else {
            overwrite(rng, (uint8_t *)buf->data, buf->len);
        }
    }
}

static void try_mutations(const char *path, const uint8_t *data, size_t size) {
    /* Seeded by the content: what other files lie beside this one changes nothing. */
    uint8_t digest[LB_SHA256_BYTES];
    uint64_t seed;
    lb_sha256(data, size, digest);
    memcpy(&seed, digest, sizeof seed);
    struct lb_rng rng;
    lb_rng_seed(&rng, seed, 0);
    size_t budget = size > 0 ? BYTES_PER_FILE / size + 1 : MUTATIONS;
    struct lb_buf buf;
    lb_buf_init(&buf, MAX_FILE + 4096);
    for (size_t i = 0; i < MUTATIONS && i < budget; i++) {
        lb_buf_reset(&buf);
        lb_buf_append(&buf, data, size);
        mutate(&rng, &buf);
        snprintf(current, sizeof current, "mutation %zu of %s", i, path);
        try_one((const uint8_t *)buf.data, buf.len);
    }
    lb_buf_finish(&buf);
}

/* ---- the corpus ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names in the folder, sorted: the order of a file system is not the same everywhere. */
static char **list_files(const char *folder, size_t *out_n) {
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        fprintf(stderr, "replay: cannot open the corpus folder %s: %s\n", folder, strerror(errno));
        exit(1);
    }
    char **names = NULL;
    size_t n = 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] == '.') {
            continue;
        }
        char **more = lb_realloc_array(names, n + 1, sizeof *names);
        char *path = lb_path_join(folder, e->d_name);
        if (more == NULL || path == NULL) {
            fprintf(stderr, "replay: out of memory\n");
            exit(1);
        }
        names = more;
        names[n++] = path;
    }
    closedir(dir);
    if (n > 0) {
        qsort(names, n, sizeof *names, by_name);
    }
    *out_n = n;
    return names;
}

static void replay_file(const char *path) {
    struct lb_buf buf;
    struct lb_detail detail = {0};
    lb_buf_init(&buf, MAX_FILE);
    if (lb_file_read(path, &buf, &detail) != LB_OK) {
        fprintf(stderr, "replay: %s\n", detail.text);
        exit(1);
    }
    snprintf(current, sizeof current, "%s", path);
    try_one((const uint8_t *)buf.data, buf.len);
    try_prefixes(path, (const uint8_t *)buf.data, buf.len);
    try_mutations(path, (const uint8_t *)buf.data, buf.len);
    lb_buf_finish(&buf);
}

int main(int argc, char **argv) {
    snprintf(failed_path, sizeof failed_path, "failed-input-%ld", (long)getpid());
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(tell_what_failed);
    } else {
        signal(SIGSEGV, on_signal);
        signal(SIGBUS, on_signal);
        signal(SIGFPE, on_signal);
    }
    signal(SIGABRT, on_signal);
    if (LLVMFuzzerInitialize != NULL) {
        (void)LLVMFuzzerInitialize(&argc, &argv);
    }
    size_t n_files = 0;
    for (int i = 1; i < argc; i++) {
        size_t n = 1;
        char **names = NULL;
        if (lb_is_dir(argv[i])) {
            names = list_files(argv[i], &n);
        }
        for (size_t j = 0; j < n; j++) {
            replay_file(names != NULL ? names[j] : argv[i]);
            if (names != NULL) {
                lb_free(names[j]);
            }
        }
        lb_free(names);
        n_files += n;
    }
    if (n_files == 0) {
        fprintf(stderr, "replay: no corpus files; usage: %s FOLDER|FILE...\n", argv[0]);
        return 1;
    }
    printf("replay: %zu files, %zu inputs; the slowest took %.1f ms: %s\n", n_files, n_tried,
           (double)slowest_ns * 1e-6, slowest);
    return 0;
}
