#include "trainer/run/checkpoint.h"

#include "common/base/arena.h"
#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define VERSION 1
#define PREFIX "checkpoint-"
#define UNFINISHED ".unfinished-" /* a folder being written, or one on its way out */
#define STATE_BYTES ((size_t)1 << 16)
#define SEAL ",\n  \"sha256\": \""
#define ARENA_BYTES ((size_t)64 << 20)

static enum lb_status no_memory(struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "out of memory for the checkpoint");
}

/* ---- the tensors of both files ---- */

struct tensors {
    struct lb_tensor *model, *states; /* [n], [n_states] */
    size_t n, n_states;
};

static struct lb_tensor view(const char *name, const struct lb_optimized *w, const float *data) {
    struct lb_tensor t = {.name = name, .dtype = LB_F32, .data = data};
    t.n_dims = w->n_dims;
    t.dim[0] = w->n_dims == 1 ? w->rows * w->cols : w->rows;
    t.dim[1] = w->n_dims == 1 ? 0 : w->cols;
    t.bytes = (size_t)(w->rows * w->cols) * sizeof(float);
    return t;
}

static bool list_tensors(struct lb_arena *arena, const struct lb_optimizer *optimizer, struct tensors *out) {
    size_t n = 0;
    const struct lb_optimized *w = lb_optimizer_weights(optimizer, &n);
    unsigned each = lb_optimizer_states(optimizer);
    *out = (struct tensors){lb_arena_zarray(arena, n, sizeof *out->model),
                            lb_arena_zarray(arena, each * n + 1, sizeof *out->states), n, 0};
    if (out->model == NULL || out->states == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        out->model[i] = view(w[i].name, &w[i], w[i].value);
        for (unsigned s = 0; w[i].grad != NULL && s < each; s++) {
            const char *name =
                lb_arena_printf(arena, "%s.%s", lb_optimizer_state_name(optimizer, s), w[i].name);
            if (name == NULL) {
                return false;
            }
            out->states[out->n_states++] = view(name, &w[i], w[i].state[s]);
        }
    }
    return true;
}

/* The digest over names and bytes in the optimiser's order. */
static bool digest_tensors(const struct lb_tensor *tensors, size_t n, char out[LB_SHA256_HEX]) {
    struct lb_sha256 *hash = lb_sha256_create();
    if (hash == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        lb_sha256_update(hash, tensors[i].name, strlen(tensors[i].name) + 1);
        lb_sha256_update(hash, tensors[i].data, tensors[i].bytes);
    }
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, out);
    return true;
}

/* ---- saving ---- */

static void digest_text(const char *text, size_t len, char out[LB_SHA256_HEX]) {
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256(text, text != NULL ? len : 0, digest);
    lb_hex(digest, sizeof digest, out);
}

/* state.json; its last member is the digest of everything before it. */
static enum lb_status write_state(const char *path, const struct lb_checkpoint *state, int64_t adam_steps,
                                  const char *model_digest, const char *states_digest,
                                  struct lb_detail *detail) {
    struct lb_buf text;
    lb_buf_init(&text, STATE_BYTES);
    lb_buf_printf(&text,
                  "{\n  \"version\": %d,\n  \"step\": %" PRId64 ",\n  \"micro_batch\": %" PRId64
                  ",\n  \"tokens\": %" PRId64 ",\n  \"adam_steps\": %" PRId64 ",\n  \"rngs\": [",
                  VERSION, state->step, state->micro_batch, state->tokens, adam_steps);
    for (unsigned i = 0; i < state->n_rngs; i++) {
        const uint64_t *s = state->rngs[i].s; /* as hex texts: JSON's integers end at 63 bits */
        lb_buf_printf(&text,
                      "%s[\"%016" PRIx64 "\", \"%016" PRIx64 "\", \"%016" PRIx64 "\", \"%016" PRIx64 "\"]",
                      i > 0 ? ", " : "", s[0], s[1], s[2], s[3]);
    }
    lb_buf_printf(&text,
                  "],\n  \"steps_summed\": %" PRId64 ",\n  \"tokens_summed\": %" PRId64 ",\n  \"sums\": [",
                  state->steps_summed, state->tokens_summed);
    for (unsigned i = 0; i < state->n_sums; i++) {
        lb_buf_printf(&text, "%s%.17g", i > 0 ? ", " : "", isfinite(state->sums[i]) ? state->sums[i] : 0);
    }
    lb_buf_append_str(&text, "],\n");
    if (state->evaluated > 0) {
        lb_buf_printf(&text,
                      "  \"evaluated\": %" PRId64 ",\n  \"best_step\": %" PRId64
                      ",\n  \"best_metric\": %.17g,\n"
                      "  \"best_of\": \"%s\",\n  \"waited\": %" PRId64 ",\n",
                      state->evaluated, state->best_step, state->best_metric, state->best_of, state->waited);
    }
    lb_buf_append_str(&text, "  \"computes\": ");
    lb_computes_write(&state->computes, &text);
    lb_buf_printf(&text,
                  ",\n  \"recipe\": \"%s\",\n  \"data\": \"%s\",\n  \"teachers\": \"%s\",\n"
                  "  \"model_sha256\": \"%s\",\n  \"optimizer_sha256\": \"%s\"",
                  state->recipe, state->data, state->teachers, model_digest, states_digest);
    char own[LB_SHA256_HEX];
    digest_text(text.data, text.len, own);
    lb_buf_printf(&text, SEAL "%s\"\n}\n", own);
    enum lb_status status = lb_buf_status(&text) != LB_OK
                                ? no_memory(detail)
                                : lb_file_replace(path, text.data, text.len, detail);
    lb_buf_finish(&text);
    return status;
}

static enum lb_status write_folder(struct lb_arena *arena, const char *folder,
                                   const struct lb_checkpoint *state, const struct lb_optimizer *optimizer,
                                   struct lb_detail *detail) {
    struct tensors t;
    char model_digest[LB_SHA256_HEX], states_digest[LB_SHA256_HEX];
    const char *model = lb_arena_printf(arena, "%s/model.safetensors", folder);
    const char *states = lb_arena_printf(arena, "%s/optimizer.safetensors", folder);
    const char *json = lb_arena_printf(arena, "%s/state.json", folder);
    if (model == NULL || states == NULL || json == NULL || !list_tensors(arena, optimizer, &t) ||
        !digest_tensors(t.model, t.n, model_digest) || !digest_tensors(t.states, t.n_states, states_digest)) {
        return no_memory(detail);
    }
    enum lb_status status = lb_mkdirs(folder, detail);
    if (status == LB_OK) {
        status = lb_safetensors_write(model, t.model, t.n, NULL, 0, detail);
    }
    if (status == LB_OK) {
        status = lb_safetensors_write(states, t.states, t.n_states, NULL, 0, detail);
    }
    if (status == LB_OK) {
        status = write_state(json, state, lb_optimizer_steps(optimizer), model_digest, states_digest, detail);
    }
    return status == LB_OK ? lb_sync_dir(folder, detail) : status;
}

/* STEP of a name "<prefix>STEP", -1 for other names. */
static int64_t step_of(const char *name, const char *prefix) {
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) != 0 || name[n] == '\0' ||
        strspn(name + n, "0123456789") != strlen(name + n) || strlen(name + n) > 18) {
        return -1;
    }
    return strtoll(name + n, NULL, 10);
}

/* What a run folder holds; steps [n] on the heap, unsorted. */
struct found {
    int64_t *steps;
    size_t n;
};

static enum lb_status find_folders(const char *dir, const char *prefix, struct found *out,
                                   struct lb_detail *detail) {
    DIR *d = opendir(dir);
    if (d == NULL) {
        return lb_fail_errno(detail, errno == ENOENT ? LB_E_NOTFOUND : LB_E_IO, errno, "cannot open %s", dir);
    }
    enum lb_status status = LB_OK;
    *out = (struct found){0};
    for (const struct dirent *entry; status == LB_OK && (entry = readdir(d)) != NULL;) {
        int64_t step = step_of(entry->d_name, prefix);
        if (step < 0) {
            continue;
        }
        int64_t *steps = lb_realloc_array(out->steps, out->n + 1, sizeof *steps);
        if (steps == NULL) {
            status = no_memory(detail);
        } else {
            out->steps = steps;
            out->steps[out->n++] = step;
        }
    }
    closedir(d);
    if (status != LB_OK) {
        lb_free(out->steps);
        *out = (struct found){0};
    }
    return status;
}

/* Removes by renaming first, so that a kill halfway does not leave a checkpoint with parts missing. */
static enum lb_status remove_checkpoint(struct lb_arena *arena, const char *dir, int64_t step,
                                        struct lb_detail *detail) {
    const char *path = lb_arena_printf(arena, "%s/" PREFIX "%" PRId64, dir, step);
    const char *out = lb_arena_printf(arena, "%s/" UNFINISHED "%" PRId64, dir, step);
    if (path == NULL || out == NULL) {
        return no_memory(detail);
    }
    enum lb_status status = lb_remove_tree(out, detail);
    if (status == LB_OK && rename(path, out) != 0) {
        status = lb_fail_errno(detail, LB_E_IO, errno, "cannot remove %s", path);
    }
    return status == LB_OK ? lb_remove_tree(out, detail) : status;
}

static int by_step(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static enum lb_status prune(struct lb_arena *arena, const char *dir, const struct lb_checkpoint *newest,
                            int64_t keep, struct lb_detail *detail) {
    struct found found;
    enum lb_status status = find_folders(dir, PREFIX, &found, detail);
    if (status != LB_OK) {
        return status;
    }
    if (found.n > 0) {
        qsort(found.steps, found.n, sizeof *found.steps, by_step);
    }
    for (size_t i = 0; status == LB_OK && i + (size_t)keep < found.n; i++) {
        if (found.steps[i] != newest->step && found.steps[i] != newest->kept_step) {
            status = remove_checkpoint(arena, dir, found.steps[i], detail);
        }
    }
    lb_free(found.steps);
    return status;
}

/* What earlier, killed runs left half-written or half-removed. */
static enum lb_status sweep(struct lb_arena *arena, const char *dir, struct lb_detail *detail) {
    struct found found;
    enum lb_status status = find_folders(dir, UNFINISHED, &found, detail);
    for (size_t i = 0; status == LB_OK && i < found.n; i++) {
        const char *path = lb_arena_printf(arena, "%s/" UNFINISHED "%" PRId64, dir, found.steps[i]);
        status = path == NULL ? no_memory(detail) : lb_remove_tree(path, detail);
    }
    lb_free(found.steps);
    return status;
}

enum lb_status lb_checkpoint_save(const char *output_dir, const struct lb_checkpoint *state,
                                  const struct lb_optimizer *optimizer, int64_t keep,
                                  struct lb_detail *detail) {
    struct lb_arena arena;
    lb_arena_init(&arena, ARENA_BYTES);
    const char *path = lb_arena_printf(&arena, "%s/" PREFIX "%" PRId64, output_dir, state->step);
    const char *unfinished = lb_arena_printf(&arena, "%s/" UNFINISHED "%" PRId64, output_dir, state->step);
    enum lb_status status =
        path == NULL || unfinished == NULL ? no_memory(detail) : lb_mkdirs(output_dir, detail);
    if (status == LB_OK) {
        status = sweep(&arena, output_dir, detail);
    }
    if (status == LB_OK) {
        status = write_folder(&arena, unfinished, state, optimizer, detail);
    }
    if (status == LB_OK) { /* one of the same step is of a run that was resumed and stopped at once */
        status = lb_folder_swap_in(unfinished, path, detail);
    }
    status = status == LB_OK ? lb_sync_dir(output_dir, detail) : status;
    if (status == LB_OK) {
        status = prune(&arena, output_dir, state, keep < 1 ? 1 : keep, detail);
    }
    /* One that was swapped out, or what a full disk stopped: it makes room, and its own failure is no news.
     */
    if (unfinished != NULL) {
        enum lb_status ignored = lb_remove_tree(unfinished, NULL);
        (void)ignored;
    }
    lb_arena_finish(&arena);
    return status;
}

enum lb_status lb_checkpoint_check_folder(const char *output_dir, bool resume, struct lb_detail *detail) {
    static const char *const files[] = {"model.safetensors", "optimizer.safetensors", "state.json"};
    struct found found;
    enum lb_status status = find_folders(output_dir, PREFIX, &found, detail);
    for (size_t i = 0; status == LB_OK && i < found.n; i++) {
        char name[64];
        snprintf(name, sizeof name, PREFIX "%" PRId64, found.steps[i]);
        char *path = lb_path_join(output_dir, name),
             *state = path != NULL ? lb_path_join(path, "state.json") : NULL;
        if (state == NULL) {
            status = no_memory(detail);
        } else if (!lb_file_exists(state) || !lb_folder_holds_only(path, files, 3)) {
            status = lb_fail(
                detail, LB_E_ARG,
                "%s was not written by Limbeck alone: choose another output_dir, or move it away", path);
        } else if (!resume) {
            status = lb_fail(
                detail, LB_E_ARG,
                "%s already holds a run (%s): continue it with --resume, or give another --output-dir",
                output_dir, name);
        }
        lb_free(path);
        lb_free(state);
    }
    lb_free(found.steps);
    return status;
}

enum lb_status lb_checkpoint_latest(const char *output_dir, char **out_path, struct lb_detail *detail) {
    struct found found;
    enum lb_status status = find_folders(output_dir, PREFIX, &found, detail);
    if (status != LB_OK) {
        return status;
    }
    int64_t best = -1;
    for (size_t i = 0; i < found.n; i++) {
        best = found.steps[i] > best ? found.steps[i] : best;
    }
    lb_free(found.steps);
    if (best < 0) {
        return lb_fail(detail, LB_E_NOTFOUND, "%s: holds no checkpoint to go on from; start without --resume",
                       output_dir);
    }
    *out_path = lb_checkpoint_path(output_dir, best);
    return *out_path == NULL ? no_memory(detail) : LB_OK;
}

char *lb_checkpoint_path(const char *output_dir, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, PREFIX "%" PRId64, step);
    return lb_path_join(output_dir, name);
}

/* ---- loading ---- */

static enum lb_status read_rngs(const json_t *object, const char *what, struct lb_checkpoint *out,
                                struct lb_detail *detail) {
    const json_t *list = json_object_get(object, "rngs");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > LB_CHECKPOINT_MAX_RNGS) {
        return lb_fail(detail, LB_E_FORMAT, "%s: rngs must be a list of at most %d", what,
                       LB_CHECKPOINT_MAX_RNGS);
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < 4; j++) {
            const char *hex = json_string_value(json_array_get(json_array_get(list, i), j));
            if (hex == NULL || strlen(hex) != 16 || !lb_begins_hex(hex, 16)) {
                return lb_fail(detail, LB_E_FORMAT, "%s: rngs[%zu][%zu] must be 16 hexadecimal digits", what,
                               i, j);
            }
            out->rngs[i].s[j] = strtoull(hex, NULL, 16);
        }
    }
    out->n_rngs = (unsigned)n;
    return LB_OK;
}

/* Optional: files of earlier versions have none. */
static enum lb_status read_sums(const json_t *object, const char *what, struct lb_checkpoint *out,
                                struct lb_detail *detail) {
    const json_t *list = json_object_get(object, "sums");
    size_t n = json_array_size(list);
    if (list != NULL && (!json_is_array(list) || n > LB_CHECKPOINT_MAX_SUMS)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: sums must be a list of at most %d", what,
                       LB_CHECKPOINT_MAX_SUMS);
    }
    for (size_t i = 0; i < n; i++) {
        out->sums[i] = json_number_value(json_array_get(list, i));
    }
    out->n_sums = (unsigned)n;
    enum lb_status status =
        lb_json_int(object, "steps_summed", false, 0, INT64_MAX, what, &out->steps_summed, detail);
    return status == LB_OK
               ? lb_json_int(object, "tokens_summed", false, 0, INT64_MAX, what, &out->tokens_summed, detail)
               : status;
}

/* Optional as well: of runs that compare their evaluations. */
static enum lb_status read_best(const json_t *object, const char *what, struct lb_checkpoint *out,
                                struct lb_detail *detail) {
    const struct {
        const char *key;
        int64_t *value;
    } numbers[] = {{"evaluated", &out->evaluated}, {"best_step", &out->best_step}, {"waited", &out->waited}};
    enum lb_status status = LB_OK;
    for (size_t i = 0; status == LB_OK && i < sizeof numbers / sizeof numbers[0]; i++) {
        status = lb_json_int(object, numbers[i].key, false, 0, INT64_MAX, what, numbers[i].value, detail);
    }
    const char *of = "";
    status = status == LB_OK ? lb_json_str(object, "best_of", false, what, &of, detail) : status;
    snprintf(out->best_of, sizeof out->best_of, "%s", of);
    out->best_metric = json_number_value(json_object_get(object, "best_metric"));
    return status;
}

static enum lb_status read_digest(const json_t *object, const char *key, const char *what, bool may_be_empty,
                                  char out[LB_SHA256_HEX], struct lb_detail *detail) {
    const char *text = "";
    enum lb_status status = lb_json_str(object, key, true, what, &text, detail);
    if (status != LB_OK) {
        return status;
    }
    size_t len = strlen(text);
    if (len != LB_SHA256_HEX - 1 && !(may_be_empty && len == 0)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s must be 64 hexadecimal digits", what, key);
    }
    memcpy(out, text, len + 1);
    return LB_OK;
}

/* state.json. */
struct stored {
    struct lb_checkpoint state;
    int64_t adam_steps;
    char model_digest[LB_SHA256_HEX], states_digest[LB_SHA256_HEX];
};

static enum lb_status damaged(const char *path, struct lb_detail *detail) {
    return lb_fail(
        detail, LB_E_FORMAT,
        "%s: damaged (its checksum is wrong); remove this checkpoint's folder to go on from the one before",
        path);
}

/* The object of state.json, after its own digest was found right. */
static enum lb_status read_sealed(const char *path, json_t **out, struct lb_detail *detail) {
    struct lb_buf text;
    lb_buf_init(&text, STATE_BYTES);
    enum lb_status status = lb_file_read(path, &text, detail);
    const size_t tail = strlen(SEAL) + LB_SHA256_HEX - 1 + strlen("\"\n}\n");
    if (status == LB_OK && text.len <= tail) {
        status = damaged(path, detail);
    }
    if (status == LB_OK) {
        char own[LB_SHA256_HEX];
        const char *seal = text.data + text.len - tail;
        digest_text(text.data, text.len - tail, own);
        bool right = memcmp(seal, SEAL, strlen(SEAL)) == 0 &&
                     memcmp(seal + strlen(SEAL), own, strlen(own)) == 0 &&
                     memcmp(seal + strlen(SEAL) + strlen(own), "\"\n}\n", 4) == 0;
        status = right ? lb_json_parse(text.data, text.len, 0, path, out, detail) : damaged(path, detail);
    }
    lb_buf_finish(&text);
    return status;
}

static enum lb_status read_state(const char *path, struct stored *out, struct lb_detail *detail) {
    json_t *object = NULL;
    int64_t version = 0;
    struct lb_checkpoint *s = &out->state;
    enum lb_status status = read_sealed(path, &object, detail);
    if (status == LB_OK) {
        status = lb_json_int(object, "version", true, 1, INT64_MAX, path, &version, detail);
    }
    if (status == LB_OK && version != VERSION) {
        status = lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s: the checkpoint has version %" PRId64
                         ", this Limbeck reads %d; go on with the one that "
                         "wrote it, or start anew in another output_dir",
                         path, version, VERSION);
    }
    const struct {
        const char *key;
        int64_t *value;
    } numbers[] = {{"step", &s->step},
                   {"micro_batch", &s->micro_batch},
                   {"tokens", &s->tokens},
                   {"adam_steps", &out->adam_steps}};
    for (size_t i = 0; status == LB_OK && i < sizeof numbers / sizeof numbers[0]; i++) {
        status = lb_json_int(object, numbers[i].key, true, 0, INT64_MAX, path, numbers[i].value, detail);
    }
    const struct {
        const char *key;
        char *value;
    } digests[] = {{"recipe", s->recipe},
                   {"data", s->data},
                   {"teachers", s->teachers},
                   {"model_sha256", out->model_digest},
                   {"optimizer_sha256", out->states_digest}};
    for (size_t i = 0; status == LB_OK && i < sizeof digests / sizeof digests[0]; i++) {
        status = read_digest(object, digests[i].key, path, i < 3, digests[i].value, detail);
    }
    if (status == LB_OK) {
        status = read_rngs(object, path, s, detail);
    }
    if (status == LB_OK) {
        status = read_sums(object, path, s, detail);
    }
    if (status == LB_OK) {
        status = read_best(object, path, s, detail);
    }
    if (status == LB_OK) {
        status = lb_computes_read(object, path, &s->computes, detail);
    }
    json_decref(object);
    return status;
}

static enum lb_status compare(const char *path, const struct lb_checkpoint *have,
                              const struct lb_checkpoint *expected, struct lb_detail *detail) {
    const struct {
        const char *have, *expected, *text;
    } pairs[] = {
        {have->recipe, expected->recipe,
         "was made by another recipe; give the recipe of that run (its copy stands in the run folder), or "
         "start anew in another output_dir"},
        {have->data, expected->data,
         "was trained on other data; the files of the data sets or the tokenizer have changed since"},
        {have->teachers, expected->teachers,
         "was taught by other teachers; serve the same models as then, or start anew in another output_dir"},
    };
    for (size_t i = 0; i < 3; i++) {
        if (pairs[i].expected[0] != '\0' && strcmp(pairs[i].have, pairs[i].expected) != 0) {
            return lb_fail(detail, LB_E_MISMATCH, "%s: %s", path, pairs[i].text);
        }
    }
    return LB_OK;
}

/* Finds each wanted tensor in the file, with its shape, and checks the digest: sources[i] is then safe to
 * copy from. */
static enum lb_status match_file(const char *path, struct lb_safetensors *file,
                                 const struct lb_tensor *wanted, size_t n, const char *digest,
                                 struct lb_tensor *sources, struct lb_detail *detail) {
    if (lb_safetensors_count(file) != n) {
        return lb_fail(detail, LB_E_MISMATCH, "%s: holds %zu tensors, the model needs %zu", path,
                       lb_safetensors_count(file), n);
    }
    for (size_t i = 0; i < n; i++) {
        const struct lb_tensor *t = lb_safetensors_find(file, wanted[i].name);
        if (t == NULL || t->dtype != LB_F32 || t->bytes != wanted[i].bytes || t->n_dims != wanted[i].n_dims ||
            memcmp(t->dim, wanted[i].dim, (size_t)t->n_dims * sizeof t->dim[0]) != 0) {
            return lb_fail(detail, LB_E_MISMATCH, "%s: %s is %s", path, wanted[i].name,
                           t == NULL ? "missing" : "of another shape than the model's");
        }
        sources[i] = *t;
        sources[i].name = wanted[i].name;
    }
    char have[LB_SHA256_HEX];
    if (!digest_tensors(sources, n, have)) {
        return no_memory(detail);
    }
    if (strcmp(have, digest) != 0) {
        return damaged(path, detail);
    }
    return LB_OK;
}

static enum lb_status load_tensors(struct lb_arena *arena, const char *path, const struct stored *stored,
                                   struct lb_optimizer *optimizer, struct lb_detail *detail) {
    struct tensors t;
    struct lb_safetensors *model = NULL, *states = NULL;
    const char *model_path = lb_arena_printf(arena, "%s/model.safetensors", path);
    const char *states_path = lb_arena_printf(arena, "%s/optimizer.safetensors", path);
    struct lb_tensor *sources = NULL;
    enum lb_status status = LB_OK;
    if (model_path == NULL || states_path == NULL || !list_tensors(arena, optimizer, &t) ||
        (sources = lb_arena_zarray(arena, t.n + t.n_states, sizeof *sources)) == NULL) {
        return no_memory(detail);
    }
    status = lb_safetensors_open(model_path, &model, detail);
    if (status == LB_OK) {
        status = lb_safetensors_open(states_path, &states, detail);
    }
    if (status == LB_OK) {
        status = match_file(model_path, model, t.model, t.n, stored->model_digest, sources, detail);
    }
    if (status == LB_OK) {
        status = match_file(states_path, states, t.states, t.n_states, stored->states_digest, sources + t.n,
                            detail);
    }
    size_t n = 0, from = 0;
    unsigned each = lb_optimizer_states(optimizer);
    const struct lb_optimized *w = lb_optimizer_weights(optimizer, &n);
    for (size_t i = 0; status == LB_OK && i < n; i++) {
        memcpy(w[i].value, sources[i].data, sources[i].bytes);
        for (unsigned s = 0; w[i].grad != NULL && s < each; s++) {
            memcpy(w[i].state[s], sources[n + from++].data, sources[i].bytes);
        }
    }
    lb_safetensors_destroy(model);
    lb_safetensors_destroy(states);
    return status;
}

enum lb_status lb_checkpoint_load(const char *path, const struct lb_checkpoint *expected,
                                  struct lb_optimizer *optimizer, struct lb_checkpoint *out,
                                  struct lb_detail *detail) {
    struct lb_arena arena;
    lb_arena_init(&arena, ARENA_BYTES);
    struct stored stored = {0};
    const char *json = lb_arena_printf(&arena, "%s/state.json", path);
    enum lb_status status = json == NULL ? no_memory(detail) : read_state(json, &stored, detail);
    if (status == LB_OK) {
        status = compare(path, &stored.state, expected, detail);
    }
    if (status == LB_OK) {
        status = load_tensors(&arena, path, &stored, optimizer, detail);
    }
    if (status == LB_OK) {
        lb_optimizer_set_steps(optimizer, stored.adam_steps);
        *out = stored.state;
    }
    lb_arena_finish(&arena);
    return status;
}
