/* Opens files as both programs do, each in a process of its own with little memory and little time: for
 * mutants.py beside this file.
 *
 * usage: open_each MEMORY_MIB SECONDS     (0: no such limit)
 * A line of standard input is BYTES PATH: a model's file or folder, or a recipe, and what memory it may take
 * beside MEMORY_MIB. What it was, one line each: a letter (A accepted, R refused, M refused for want of
 * memory, C crashed, H took more than SECONDS of processor time), its milliseconds, and what was said.
 */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/model.h"
#include "common/nn/gemm.h"
#include "common/text/trim.h"
#include "tests/support/sanitized.h"
#include "trainer/data/chat.h"
#include "trainer/recipe/recipe.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAPE_BYTES ((size_t)48 << 20)
#define POSITIONS 5
#define WALL_SECONDS 60 /* for what waits without computing */

/* Which outcomes a child tells by its exit status. */
enum { ACCEPTED = 10, REFUSED, NO_MEMORY };

/* Texts of every kind that a tokenizer could stumble over. */
static const char text[] =
    "It's  the 12th \u00e9t\u00e9, <s>ab\n\tabab \U0001f642\u4e00 a_b [MASK] THE\u2581 x";

/* ---- what is done with a file ---- */

static enum lb_status add_up(void *context, int64_t row, int64_t n, float *z) {
    (void)row;
    *(volatile double *)context += n > 0 ? z[0] : 0;
    return LB_OK;
}

/* A model that opens computes: shapes that do not fit would be read beyond their end. */
static void run_model(const struct lb_model *model) {
    int32_t ids[POSITIONS], offsets[2] = {0, POSITIONS};
    const struct lb_config *c = lb_model_config(model);
    float *features = lb_calloc((size_t)c->input_size + 1, sizeof *features);
    struct lb_input in = {.ragged = {1, offsets}, .ids = ids, .features = features};
    struct lb_tape *tape = lb_tape_create(TAPE_BYTES);
    double sum = 0;
    for (int i = 0; i < POSITIONS; i++) {
        ids[i] = c->vocab_size > 0 ? (int32_t)((7 * i + 1) % c->vocab_size) : 0;
    }
    if (c->input_size > 0 || c->max_position_embeddings < POSITIONS) {
        offsets[1] = 1;
    }
    if (tape != NULL && features != NULL) {
        lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
        struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
        if (h != NULL && lb_model_head(model)->weight != NULL) {
            (void)lb_head_run(tape, h, lb_model_head(model), NULL, add_up, &sum);
        }
    }
    lb_tape_destroy(tape);
    lb_free(features);
}

static enum lb_status open_model(const char *path, struct lb_detail *detail) {
    struct lb_model *model = NULL;
    enum lb_status status = lb_model_open(path, false, &model, detail);
    if (status == LB_OK) {
        run_model(model);
    }
    lb_model_destroy(model);
    return status;
}

static enum lb_status render(const struct lb_tokenizer *tokenizer, struct lb_detail *detail) {
    static const char row[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"be brief\"}, {\"role\": \"user\", "
        "\"content\": \"a<b> c\"}, {\"role\": \"assistant\", \"content\": \"d\"}]}";
    struct lb_chat *chat = NULL;
    struct lb_conversation talk = {0};
    struct lb_chat_text written = {0};
    struct lb_ids ids = {0};
    json_t *json = NULL;
    enum lb_status status = lb_chat_open(tokenizer, NULL, &chat, detail);
    status = status == LB_OK ? lb_json_parse(row, sizeof row - 1, 0, "row", &json, detail) : status;
    status = status == LB_OK ? lb_conversation_init(json, LB_ROW_MESSAGES, &talk, detail) : status;
    status = status == LB_OK ? lb_chat_render(chat, &talk, talk.n_messages, false, NULL, &written, detail)
                             : status;
    if (status == LB_OK && lb_chat_encode(chat, &talk, LB_COUNTS_ASSISTANT, &ids, detail) != LB_OK) {
        *detail = (struct lb_detail){0}; /* of the row, not of the file */
    }
    lb_chat_text_finish(&written);
    lb_conversation_finish(&talk);
    json_decref(json);
    lb_free(ids.data);
    lb_chat_destroy(chat);
    return status;
}

static enum lb_status open_texts(const char *path, struct lb_detail *detail) {
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_vocab_map *map = NULL;
    struct lb_ids ids = {0};
    struct lb_buf back;
    lb_buf_init(&back, (size_t)1 << 20);
    enum lb_status status = lb_tokenizer_open(path, &tokenizer, detail);
    status = status == LB_OK ? lb_vocab_map_open(path, tokenizer, &map, detail) : status;
    status =
        status == LB_OK ? lb_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, detail) : status;
    if (status == LB_OK) {
        status = lb_tokenizer_decode(tokenizer, ids.data, ids.len, false, &back, detail);
    }
    if (status == LB_OK && lb_tokenizer_chat_template(tokenizer) != NULL) {
        status = render(tokenizer, detail);
    }
    lb_buf_finish(&back);
    lb_free(ids.data);
    lb_vocab_map_destroy(map);
    lb_tokenizer_destroy(tokenizer);
    return status;
}

static enum lb_status open_recipe(const char *path, struct lb_detail *detail) {
    struct lb_recipe *recipe = NULL;
    char *dump = NULL;
    size_t len = 0;
    enum lb_status status = lb_recipe_load(path, NULL, 0, &recipe, detail);
    status = status == LB_OK ? lb_recipe_dump(recipe, &dump, &len, detail) : status;
    lb_free(dump);
    lb_recipe_destroy(recipe);
    return status;
}

/* Model and tokenizer, and both written out beside the folder. */
static enum lb_status save_again(const char *path, struct lb_detail *detail) {
    char to[4096];
    struct lb_model *model = NULL;
    struct lb_tokenizer *tokenizer = NULL;
    snprintf(to, sizeof to, "%s/../saved", path);
    enum lb_status status = lb_model_open(path, true, &model, detail);
    status = status == LB_OK ? lb_tokenizer_open(path, &tokenizer, detail) : status;
    status = status == LB_OK ? lb_model_save_hf(model, to, LB_F32, tokenizer, NULL, detail) : status;
    lb_tokenizer_destroy(tokenizer);
    lb_model_destroy(model);
    return status;
}

/* way: model, texts, all (both), save, recipe. */
static enum lb_status open_as(const char *way, const char *path, struct lb_detail *detail) {
    bool all = strcmp(way, "all") == 0;
    enum lb_status status = LB_OK;
    if (strcmp(way, "recipe") == 0) {
        return open_recipe(path, detail);
    }
    if (strcmp(way, "save") == 0) {
        return save_again(path, detail);
    }
    if (all || strcmp(way, "model") == 0) {
        status = open_model(path, detail);
    }
    if (status == LB_OK && (all || strcmp(way, "texts") == 0)) {
        status = open_texts(path, detail);
    }
    return status;
}

/* ---- each in a process of its own ---- */

/* Memory that this process has of its own, in bytes. */
static uint64_t own_data(void) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t kib = 0;
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        (void)sscanf(line, "VmData: %" SCNu64, &kib);
    }
    if (status != NULL) {
        fclose(status);
    }
    return kib << 10;
}

static void limit(uint64_t bytes, unsigned memory_mib, unsigned seconds) {
    if (memory_mib > 0 && !LB_SANITIZED) {
        struct rlimit most = {0};
        most.rlim_cur = most.rlim_max = own_data() + bytes + ((uint64_t)memory_mib << 20);
        (void)setrlimit(RLIMIT_DATA, &most);
    }
    if (seconds > 0) {
        const struct itimerval until = {.it_value = {.tv_sec = (time_t)seconds}};
        (void)setitimer(ITIMER_PROF, &until, NULL);
        (void)alarm(WALL_SECONDS);
    }
}

/* The child: what was said goes to fd. */
static int judge(const char *way, const char *path, int fd) {
    struct lb_detail detail = {0};
    enum lb_status status = open_as(way, path, &detail);
    if (status != LB_OK) {
        (void)!write(fd, detail.text, strlen(detail.text));
    }
    return status == LB_OK ? ACCEPTED : status == LB_E_NOMEM ? NO_MEMORY : REFUSED;
}

static size_t read_all(int fd, char *out, size_t most) {
    size_t len = 0;
    for (ssize_t n = 1; n != 0 && len < most;) {
        n = read(fd, out + len, most - len);
        len += n > 0 ? (size_t)n : 0;
        if (n < 0 && errno != EINTR) {
            break;
        }
    }
    return len;
}

static char letter(int status) {
    if (WIFSIGNALED(status)) {
        return WTERMSIG(status) == SIGPROF || WTERMSIG(status) == SIGALRM ? 'H' : 'C';
    }
    switch (WEXITSTATUS(status)) {
    case ACCEPTED:
        return 'A';
    case REFUSED:
        return 'R';
    case NO_MEMORY:
        return 'M';
    default:
        return 'C'; /* a sanitizer */
    }
}

static void tell(int status, double ms, const char *said, size_t len) {
    printf("%c %.1f ", letter(status), ms);
    for (size_t i = 0; i < len; i++) { /* what is no text is shown: a refusal is one line of text */
        unsigned char c = (unsigned char)said[i];
        printf(c < 0x20 || c == 0x7f ? "\\x%02x" : "%c", c);
    }
    putchar('\n');
    fflush(stdout);
}

static void open_one(const char *way, const char *path, uint64_t bytes, unsigned memory_mib,
                     unsigned seconds) {
    int ends[2];
    char said[4096];
    struct rusage before, after;
    getrusage(RUSAGE_CHILDREN, &before);
    if (pipe(ends) != 0) {
        exit(1);
    }
    pid_t child = fork();
    if (child < 0) {
        exit(1);
    }
    if (child == 0) {
        close(ends[0]);
        limit(bytes, memory_mib, seconds);
        _exit(judge(way, path, ends[1])); /* leaks are what fuzz targets look for */
    }
    close(ends[1]);
    size_t len = read_all(ends[0], said, sizeof said);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    close(ends[0]);
    getrusage(RUSAGE_CHILDREN, &after);
    double ms = 1e3 * (double)(after.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_utime.tv_sec -
                               before.ru_stime.tv_sec) +
                1e-3 * (double)(after.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_utime.tv_usec -
                                before.ru_stime.tv_usec);
    tell(status, ms, said, len);
}

/* What BLAS takes once is not the file's. */
static void warm_up(void) {
    static float x[64 * 64], y[64 * 64];
    lb_gemm_nt(64, 64, 64, x, 64, x, 64, 0, y, 64, NULL);
}

int main(int argc, char **argv) {
    char line[4096];
    if (argc != 2) {
        fprintf(stderr, "usage: open_each MEMORY_MIB < LINES\n");
        return 2;
    }
    unsigned memory_mib = (unsigned)strtoul(argv[1], NULL, 10), seconds;
    warm_up();
    while (fgets(line, sizeof line, stdin) != NULL) {
        char way[16], path[4000];
        uint64_t bytes = 0;
        if (sscanf(line, "%" SCNu64 " %u %15s %3999[^\n]", &bytes, &seconds, way, path) != 4) {
            return 2;
        }
        open_one(way, path, bytes, memory_mib, seconds);
    }
    return 0;
}
