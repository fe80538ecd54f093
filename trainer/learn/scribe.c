#include "trainer/learn/scribe.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/model/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TAPE_BYTES ((size_t)8 << 30)
#define NEW_TOKENS 128 /* where the recipe does not say, as TRL's GKD */
/* Apart from each other and from those of weights, order and dropout. */
#define STREAM_SOURCE ((uint64_t)0x77686f << 32)    /* "who" */
#define STREAM_WRITING ((uint64_t)0x77726974 << 24) /* "writ" */
#define SEED_BITS 53                                /* whole in a JSON number */
#define GRAM 4

struct lb_scribe {
    const struct lb_recipe *recipe;
    const struct lb_model *student;
    const volatile sig_atomic_t *stop;
    struct lb_tape *tape;
    struct lb_ends ends;
    int64_t n_ids; /* of the tokenizer: the head of a padded vocabulary has more */
    struct lb_scribed since;
    uint64_t ns;
};

/* ---- numbers ---- */

double lb_scribe_lmbda(const struct lb_recipe *recipe, int64_t step) {
    int64_t since = step - recipe->off_policy_steps, ramp = recipe->lmbda_ramp_steps;
    if (since < 0) {
        return 0;
    }
    return since < ramp ? recipe->lmbda * (double)(since + 1) / (double)(ramp + 1) : recipe->lmbda;
}

enum lb_source lb_scribe_source(const struct lb_recipe *recipe, int64_t m) {
    struct lb_rng rng;
    lb_rng_seed(&rng, (uint64_t)recipe->seed, STREAM_SOURCE + (uint64_t)m);
    double lmbda = lb_scribe_lmbda(recipe, m / recipe->gradient_accumulation_steps),
           ratio = isnan(recipe->seq_kd_ratio) ? 1 : recipe->seq_kd_ratio;
    if (lb_rng_double(&rng) < lmbda) {
        return LB_SOURCE_STUDENT;
    }
    return recipe->seq_kd && lb_rng_double(&rng) < ratio ? LB_SOURCE_TEACHER : LB_SOURCE_DATASET;
}

uint64_t lb_scribe_seed(const struct lb_recipe *recipe, int64_t number) {
    struct lb_rng rng;
    lb_rng_seed(&rng, (uint64_t)recipe->seed, STREAM_WRITING + (uint64_t)number);
    return lb_rng_u64(&rng) >> (64 - SEED_BITS);
}

int64_t lb_scribe_room(const struct lb_recipe *recipe, int64_t prompt) {
    int64_t room = recipe->max_length + 1 - prompt,
            most = recipe->max_new_tokens > 0 ? recipe->max_new_tokens : NEW_TOKENS;
    return most < room ? most : room;
}

/* ---- life ---- */

enum lb_status lb_scribe_create(const struct lb_recipe *recipe, const struct lb_model *student,
                                const struct lb_tokenizer *tokenizer, const volatile sig_atomic_t *stop,
                                struct lb_scribe **out, struct lb_detail *detail) {
    struct lb_scribe *scribe = lb_calloc(1, sizeof *scribe);
    if (scribe != NULL) {
        *scribe = (struct lb_scribe){.recipe = recipe,
                                     .student = student,
                                     .stop = stop,
                                     .ends = *lb_model_ends(student),
                                     .n_ids = lb_tokenizer_vocab_size(tokenizer)};
        scribe->tape = lb_tape_create(TAPE_BYTES);
    }
    if (scribe == NULL || scribe->tape == NULL) {
        lb_scribe_destroy(scribe);
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the student's texts");
    }
    if (scribe->ends.n == 0 && lb_tokenizer_eos(tokenizer) >= 0) {
        scribe->ends.ids[scribe->ends.n++] = lb_tokenizer_eos(tokenizer);
    }
    *out = scribe;
    return LB_OK;
}

void lb_scribe_destroy(struct lb_scribe *scribe) {
    if (scribe != NULL) {
        lb_tape_destroy(scribe->tape);
        lb_free(scribe);
    }
}

struct lb_scribed lb_scribe_take(struct lb_scribe *scribe) {
    struct lb_scribed since = scribe->since;
    scribe->since = (struct lb_scribed){0};
    return since;
}

double lb_scribe_seconds(const struct lb_scribe *scribe) {
    return (double)scribe->ns / (double)LB_SECOND_NS;
}

bool lb_scribe_ends(const struct lb_scribe *scribe, int32_t id) {
    return lb_ends_has(&scribe->ends, id);
}

/* ---- writing ---- */

/* The texts of a micro-batch, as they grow. */
struct page {
    const struct lb_scribe *scribe;
    int32_t **ids; /* [n] prompt and what came */
    int64_t *len;  /* [n] */
    bool stopped;
};

static bool take(void *context, int64_t i, int32_t id, bool ends, const float *z) {
    struct page *page = context;
    (void)z;
    (void)ends;
    page->stopped = page->stopped || (page->scribe->stop != NULL && *page->scribe->stop != 0);
    page->ids[i][page->len[i]++] = id;
    return !page->stopped;
}

static struct lb_generate_args args_of(const struct lb_scribe *scribe, int64_t number, int64_t prompt) {
    const struct lb_recipe *r = scribe->recipe;
    return (struct lb_generate_args){.max_new_tokens = lb_scribe_room(r, prompt),
                                     .temperature =
                                         isnan(r->generation_temperature) ? 1 : r->generation_temperature,
                                     .top_p = isnan(r->top_p) ? 1 : r->top_p,
                                     .seed = lb_scribe_seed(r, number),
                                     .ends = &scribe->ends,
                                     .n_ids = scribe->n_ids};
}

static enum lb_status no_memory(int64_t n, struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM,
                   "no memory to write %lld texts together: lower per_device_train_batch_size, and raise "
                   "gradient_accumulation_steps",
                   (long long)n);
}

static enum lb_status write_all(struct lb_scribe *scribe, const struct lb_generate_prompt *prompts, int64_t n,
                                struct page *page, struct lb_detail *detail) {
    struct lb_generator *generator = NULL;
    enum lb_status status = lb_generator_create(scribe->student, prompts, n, &generator, detail);
    if (status != LB_OK) {
        return status;
    }
    while (status == LB_OK && lb_generator_left(generator) > 0) {
        status = lb_generator_step(generator, scribe->tape, take, page);
    }
    lb_generator_destroy(generator);
    if (status != LB_OK) {
        return no_memory(n, detail);
    }
    return page->stopped ? lb_fail(detail, LB_E_CANCELLED, "stopped while the student wrote") : LB_OK;
}

static int compare_grams(const void *a, const void *b) {
    return memcmp(a, b, GRAM * sizeof(int32_t));
}

/* The share of runs of four tokens that stood there before; 0 where there is none. *out false: no memory. */
static bool repetition(const int32_t *ids, int64_t n, double *out) {
    int64_t grams = n - GRAM + 1, again = 0;
    *out = 0;
    if (grams < 2) {
        return true;
    }
    int32_t(*sorted)[GRAM] = lb_malloc_array((size_t)grams, sizeof *sorted);
    if (sorted == NULL) {
        return false;
    }
    for (int64_t i = 0; i < grams; i++) {
        memcpy(sorted[i], ids + i, sizeof *sorted);
    }
    qsort(sorted, (size_t)grams, sizeof *sorted, compare_grams);
    for (int64_t i = 1; i < grams; i++) {
        again += memcmp(sorted[i - 1], sorted[i], sizeof *sorted) == 0;
    }
    lb_free(sorted);
    *out = (double)again / (double)grams;
    return true;
}

bool lb_sample_rewrite(struct lb_sample *sample, const int32_t *ids, int64_t len, enum lb_source source,
                       struct lb_arena *arena) {
    uint8_t *counts = lb_arena_zarray(arena, (size_t)len, sizeof *counts);
    if (counts == NULL) {
        return false;
    }
    memset(counts + sample->prompt, 1, (size_t)(len - sample->prompt));
    sample->ids = ids;
    sample->n = len - 1;
    sample->counts = counts;
    sample->record = NULL; /* that says something else */
    sample->record_len = 0;
    sample->source = source;
    return true;
}

/* The text of ids [len] as the sample; false: out of memory. */
static bool put(struct lb_scribe *scribe, int32_t *ids, int64_t len, struct lb_arena *arena,
                struct lb_sample *sample) {
    double repeated;
    if (!repetition(ids + sample->prompt, len - sample->prompt, &repeated)) {
        return false;
    }
    scribe->since.texts++;
    scribe->since.tokens += (double)(len - sample->prompt);
    scribe->since.clipped += !lb_ends_has(&scribe->ends, ids[len - 1]);
    scribe->since.repeated += repeated;
    return lb_sample_rewrite(sample, ids, len, LB_SOURCE_STUDENT, arena);
}

enum lb_status lb_scribe_write(struct lb_scribe *scribe, int64_t number, struct lb_sample *samples, int64_t n,
                               struct lb_arena *arena, struct lb_detail *detail) {
    uint64_t began = lb_now_ns();
    struct page page = {.scribe = scribe};
    struct lb_generate_prompt *prompts = lb_arena_array(arena, (size_t)n, sizeof *prompts);
    page.ids = lb_arena_array(arena, (size_t)n, sizeof *page.ids);
    page.len = lb_arena_array(arena, (size_t)n, sizeof *page.len);
    bool ok = prompts != NULL && page.ids != NULL && page.len != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        int64_t prompt = samples[i].prompt;
        if (prompt < 1 || prompt >= scribe->recipe->max_length) {
            return lb_fail(detail, LB_E_ARG, "a sample has no prompt to write behind within max_length %lld",
                           (long long)scribe->recipe->max_length);
        }
        struct lb_generate_args args = args_of(scribe, number + i, prompt);
        prompts[i] = (struct lb_generate_prompt){samples[i].ids, prompt, args};
        page.len[i] = prompt;
        page.ids[i] = lb_arena_array(arena, (size_t)(prompt + args.max_new_tokens), sizeof **page.ids);
        ok = page.ids[i] != NULL;
        if (ok) {
            memcpy(page.ids[i], samples[i].ids, (size_t)prompt * sizeof **page.ids);
        }
    }
    enum lb_status status = ok ? write_all(scribe, prompts, n, &page, detail) : no_memory(n, detail);
    for (int64_t i = 0; status == LB_OK && i < n; i++) {
        status = put(scribe, page.ids[i], page.len[i], arena, &samples[i]) ? LB_OK : no_memory(n, detail);
    }
    scribe->ns += lb_now_ns() - began;
    return status;
}
