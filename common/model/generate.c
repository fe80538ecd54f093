#include "common/model/generate.h"

#include "common/base/arena.h"
#include "common/base/mem.h"
#include "common/nn/head.h"
#include "common/nn/ops.h"
#include "common/nn/pick.h"
#include "common/nn/reduce.h"

#include <stdio.h>
#include <string.h>

#define GENERATE_BYTES ((size_t)8 << 30)

/* A text that is being written. */
struct text {
    int64_t prompt; /* which */
    const struct lb_generate_args *args;
    struct lb_rng rng;
    int64_t left; /* ids that may still come */
    int32_t next;
    int32_t *so_far; /* [length] prompt and what came; NULL where keys that are held stay what they are */
    int64_t length;
};

/* All that are, in the order of the cache's sequences, and the workspace of a step. */
struct lb_generator {
    const struct lb_model *model;
    struct lb_tape *tape;   /* of the step */
    struct lb_arena memory; /* of all below but the cache */
    struct lb_kv kv;
    struct text *texts;
    int64_t n, v;
    int32_t *ids;     /* what goes through the model next */
    int32_t *offsets; /* [n + 1] of ids */
    int32_t *first;   /* [n] the last row of each: the only one whose logits matter */
    float *z;         /* [n, V] their logits */
    int32_t *top_ids; /* [n, V] */
    float *top;       /* [n, V] */
};

#define FEW 256
#define MORE 8

/* The first of n shares up to which they sum to more than u; n when all do not. */
static int64_t first_beyond(const float *shares, int64_t n, double u) {
    int64_t i = 0;
    for (; i < n; i++) {
        u -= shares[i];
        if (u < 0) {
            break;
        }
    }
    return i;
}

/* All ids in order, which of more than a few hundred is several times as fast as their heap. */
static void order_all(const float *z, int64_t v, int32_t *ids, float *values) {
    for (int64_t i = 0; i < v; i++) {
        ids[i] = (int32_t)i;
        values[i] = z[i];
    }
    lb_sort_down(ids, values, v);
}

int32_t lb_generate_draw(const struct lb_generate_args *a, struct lb_rng *rng, const float *z, int64_t v,
                         int32_t *ids, float *values) {
    v = a->n_ids > 0 && a->n_ids < v ? a->n_ids : v;
    if (a->temperature <= 0) {
        return (int32_t)lb_argmax(z, v);
    }
    bool all = a->top_k <= 0 || a->top_k >= v, ordered = false;
    int64_t shares = 0; /* so many of the ordered values are these by now */
    double lse = all ? lb_logsumexp(z, v, a->temperature) : 0, u = lb_rng_double(rng);
    if (all && a->top_p >= 1) { /* the order is not needed but for a number that lies between two */
        lb_softmax(z, v, a->temperature, lse, values);
        int64_t picked = lb_pick(z, values, v, u);
        if (picked >= 0) {
            return (int32_t)picked;
        }
    }
    /* Nearly all draws fall among the first few: the others need not be put in order. */
    for (int64_t k = all ? FEW < v ? FEW : v : a->top_k;; k = MORE * k < v ? MORE * k : v) {
        bool last = !all || k == v;
        if (all && k > FEW && !ordered) {
            order_all(z, v, ids, values);
            ordered = true;
            shares = 0;
        } else if (!ordered) {
            lb_topk(z, v, k, ids, values);
        }
        lse = all ? lse : lb_logsumexp(values, k, a->temperature);
        lb_softmax(values + shares, k - shares, a->temperature, lse, values + shares);
        shares = k;
        double mass = 0;
        int64_t n = 0;
        while (n < k && (n == 0 || mass < a->top_p)) {
            mass += values[n++];
        }
        bool held = last || mass >= a->top_p; /* all that may be drawn is here */
        if (held || a->top_p >= 1) {
            int64_t i = first_beyond(values, n, u * (held ? mass : 1));
            if (i < n || held) {
                return ids[i < n ? i : n - 1];
            }
        }
    }
}

/* Copies the logits of last rows to their text's. */
static void take_logits(void *context, int64_t row, int64_t n, int64_t id, int64_t n_ids, const float *z,
                        int64_t ldz) {
    struct lb_generator *b = context;
    int64_t s = 0;
    for (int64_t i = 0; i < n; i++) {
        while (b->offsets[s + 1] <= row + i) {
            s++;
        }
        memcpy(b->z + s * b->v + id, z + i * ldz, (size_t)n_ids * sizeof *z);
    }
}

/* Runs the ids through the model, behind what the cache holds; next of each text is the id drawn after its
 * last. */
static enum lb_status step(struct lb_generator *b) {
    struct lb_input in = {.ragged = {b->n, b->offsets}, .ids = b->ids};
    for (int64_t s = 0; s < b->n; s++) {
        b->first[s] = b->offsets[s + 1] - b->offsets[s] - 1;
    }
    lb_tape_begin(b->tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(b->model, b->tape, &in, NULL, 0, &b->kv);
    const struct lb_head_reader reader = {.context = b, .logits = take_logits};
    enum lb_status status = lb_head_read(b->tape, h, lb_model_head(b->model), b->first, &reader);
#pragma omp parallel for schedule(dynamic) if (status == LB_OK && b->n > 1)
    for (int64_t s = 0; s < (status == LB_OK ? b->n : 0); s++) {
        struct text *text = &b->texts[s];
        text->next = lb_generate_draw(text->args, &text->rng, b->z + s * b->v, b->v, b->top_ids + s * b->v,
                                      b->top + s * b->v);
    }
    return status;
}

/* What goes through the model next of a text that goes on, the cache's sequence n: its new id, or all of it
 * where keys have to be turned anew. */
static int64_t next_ids(struct lb_generator *b, struct text *text, int64_t n, int32_t *out) {
    if (text->so_far != NULL) {
        text->so_far[text->length++] = text->next;
        if (lb_model_turns_anew(b->model, text->length)) {
            b->kv.places[n].length = 0;
            memcpy(out, text->so_far, (size_t)text->length * sizeof *out);
            return text->length;
        }
    }
    *out = text->next;
    return 1;
}

/* Gives each text's id, and makes the next ids of those that go on; the others leave. */
static void give(struct lb_generator *b, lb_generator_fn fn, void *context) {
    int64_t n = 0;
    for (int64_t s = 0; s < b->n; s++) {
        struct text *text = &b->texts[s];
        bool ends = text->args->ends != NULL && lb_ends_has(text->args->ends, text->next);
        bool goes_on = fn(context, text->prompt, text->next, ends, b->z + s * b->v);
        if (!goes_on || ends || --text->left == 0) {
            lb_kv_drop(&b->kv, n);
            continue;
        }
        b->offsets[n + 1] = b->offsets[n] + (int32_t)next_ids(b, text, n, b->ids + b->offsets[n]);
        b->texts[n++] = *text;
    }
    b->n = n;
}

static enum lb_status check(const struct lb_model *model, const struct lb_generate_prompt *prompt, int64_t i,
                            int64_t n, struct lb_detail *detail) {
    const struct lb_config *c = lb_model_config(model);
    char which[40] = "the prompt";
    if (n > 1) {
        snprintf(which, sizeof which, "prompt %lld", (long long)i);
    }
    if (!lb_model_is_causal(model) || lb_model_is_classifier(model)) {
        return lb_fail(detail, LB_E_ARG, "a %s does not generate text", c->model_type);
    }
    if (prompt->n < 1 || prompt->n >= c->max_position_embeddings) {
        return lb_fail(detail, LB_E_ARG, "%s has %lld tokens; this model takes 1 to %lld", which,
                       (long long)prompt->n, (long long)c->max_position_embeddings - 1);
    }
    for (int64_t t = 0; t < prompt->n; t++) {
        if (prompt->ids[t] < 0 || prompt->ids[t] >= c->vocab_size) {
            return lb_fail(detail, LB_E_ARG, "%s: id %d at %lld is outside the vocabulary of %lld", which,
                           prompt->ids[t], (long long)t, (long long)c->vocab_size);
        }
    }
    return LB_OK;
}

/* The texts that have anything to come, and their prompts as the first step. capacity [n] is scratch. */
static enum lb_status begin(struct lb_generator *b, const struct lb_generate_prompt *prompts, int64_t n,
                            int64_t *capacity) {
    int64_t limit = lb_model_config(b->model)->max_position_embeddings, total = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct lb_generate_prompt *p = &prompts[i];
        int64_t room = limit - p->n, left = p->args.max_new_tokens < room ? p->args.max_new_tokens : room;
        if (left <= 0) {
            continue;
        }
        b->texts[b->n] = (struct text){.prompt = i, .args = &p->args, .left = left};
        lb_rng_seed(&b->texts[b->n].rng, p->args.seed, 0);
        memcpy(b->ids + total, p->ids, (size_t)p->n * sizeof *p->ids);
        capacity[b->n] = p->n + left;
        total += p->n;
        b->offsets[++b->n] = (int32_t)total;
    }
    return b->n > 0 ? lb_kv_init(&b->kv, b->model, b->n, capacity) : LB_OK;
}

/* Where keys have to be turned anew at some length: room for all ids of all texts. */
static bool keep_ids(struct lb_generator *b, const struct lb_generate_prompt *prompts,
                     const int64_t *capacity, struct lb_arena *memory) {
    int64_t total = 0, longest = 0;
    for (int64_t s = 0; s < b->n; s++) {
        total += capacity[s];
        longest = capacity[s] > longest ? capacity[s] : longest;
    }
    bool anew = false;
    for (int64_t t = 1; t <= longest && !anew; t++) {
        anew = lb_model_turns_anew(b->model, t);
    }
    if (!anew) {
        return true;
    }
    int32_t *ids = total <= INT32_MAX ? lb_arena_array(memory, (size_t)total, sizeof *ids) : NULL;
    int32_t *all = ids != NULL ? lb_arena_array(memory, (size_t)total, sizeof *all) : NULL;
    if (all == NULL) {
        return false;
    }
    memcpy(ids, b->ids, (size_t)b->offsets[b->n] * sizeof *ids);
    b->ids = ids;
    for (int64_t s = 0; s < b->n; all += capacity[s++]) {
        const struct lb_generate_prompt *p = &prompts[b->texts[s].prompt];
        memcpy(all, p->ids, (size_t)p->n * sizeof *all);
        b->texts[s].so_far = all;
        b->texts[s].length = p->n;
    }
    return true;
}

enum lb_status lb_generator_create(const struct lb_model *model, const struct lb_generate_prompt *prompts,
                                   int64_t n, struct lb_generator **out, struct lb_detail *detail) {
    int64_t v = lb_model_config(model)->vocab_size;
    size_t rows = 0, numbers = 0;
    if (lb_model_check_tap(model, LB_TAP_ATTENTION, 0, NULL) != LB_OK) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "a classifier generates no text");
    }
    for (int64_t i = 0; i < n; i++) {
        enum lb_status status = check(model, &prompts[i], i, n, detail);
        if (status != LB_OK) {
            return status;
        }
        rows += (size_t)prompts[i].n;
    }
    if (n < 1 || rows > INT32_MAX || !lb_mul_size((size_t)n, (size_t)v, &numbers)) {
        return lb_fail(detail, LB_E_ARG, "%lld prompts of %zu tokens can't be one batch", (long long)n, rows);
    }
    struct lb_generator *b = lb_calloc(1, sizeof *b);
    if (b == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "no memory to go on with %lld prompts", (long long)n);
    }
    b->model = model;
    b->v = v;
    lb_arena_init(&b->memory, GENERATE_BYTES);
    int64_t *capacity = lb_arena_array(&b->memory, (size_t)n, sizeof *capacity);
    b->texts = lb_arena_array(&b->memory, (size_t)n, sizeof *b->texts);
    b->ids = lb_arena_array(&b->memory, rows, sizeof *b->ids);
    b->offsets = lb_arena_zarray(&b->memory, (size_t)n + 1, sizeof *b->offsets);
    b->first = lb_arena_array(&b->memory, (size_t)n, sizeof *b->first);
    b->z = lb_arena_array(&b->memory, numbers, sizeof *b->z);
    b->top_ids = lb_arena_array(&b->memory, numbers, sizeof *b->top_ids);
    b->top = lb_arena_array(&b->memory, numbers, sizeof *b->top);
    bool ok = capacity != NULL && b->texts != NULL && b->ids != NULL && b->offsets != NULL &&
              b->first != NULL && b->z != NULL && b->top_ids != NULL && b->top != NULL;
    enum lb_status status = ok ? begin(b, prompts, n, capacity) : LB_E_NOMEM;
    status = status == LB_OK && !keep_ids(b, prompts, capacity, &b->memory) ? LB_E_NOMEM : status;
    if (status != LB_OK) {
        lb_generator_destroy(b);
        return lb_fail(detail, status, "no memory to go on with %lld prompts of %zu tokens", (long long)n,
                       rows);
    }
    *out = b;
    return LB_OK;
}

size_t lb_generator_bytes(const struct lb_model *model, const struct lb_generate_prompt *prompts, int64_t n) {
    const struct lb_config *c = lb_model_config(model);
    size_t position =
        (size_t)(c->num_key_value_heads * c->head_dim * c->num_hidden_layers) * 2 * sizeof(float);
    size_t bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t room = c->max_position_embeddings - prompts[i].n;
        int64_t left = prompts[i].args.max_new_tokens < room ? prompts[i].args.max_new_tokens : room;
        size_t positions = (size_t)(prompts[i].n + (left > 0 ? left : 0) + LB_KV_BLOCK - 1);
        bytes += positions * (position + 3 * sizeof(int32_t)) + 3 * (size_t)c->vocab_size * sizeof(float);
    }
    return bytes;
}

int64_t lb_generator_left(const struct lb_generator *generator) {
    return generator->n;
}

enum lb_status lb_generator_step(struct lb_generator *generator, struct lb_tape *tape, lb_generator_fn fn,
                                 void *context) {
    generator->tape = tape;
    enum lb_status status = generator->n > 0 ? step(generator) : LB_OK;
    if (status == LB_OK) {
        give(generator, fn, context);
    }
    return status;
}

void lb_generator_destroy(struct lb_generator *generator) {
    if (generator != NULL) {
        lb_kv_finish(&generator->kv);
        lb_arena_finish(&generator->memory);
        lb_free(generator);
    }
}

/* ---- in one go ---- */

/* Whom lb_generate_batch tells. */
struct taker {
    lb_generate_batch_fn fn;
    void *context;
    enum lb_status given; /* what fn says */
};

static bool take(void *context, int64_t i, int32_t id, bool ends, const float *z) {
    struct taker *taker = context;
    (void)z;
    if (!ends && taker->given == LB_OK) {
        taker->given = taker->fn(taker->context, i, id);
    }
    return taker->given == LB_OK;
}

enum lb_status lb_generate_batch(const struct lb_model *model, const struct lb_generate_prompt *prompts,
                                 int64_t n, lb_generate_batch_fn fn, void *context,
                                 struct lb_detail *detail) {
    struct taker taker = {fn, context, LB_OK};
    struct lb_generator *generator = NULL;
    enum lb_status status = lb_generator_create(model, prompts, n, &generator, detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_tape *tape = lb_tape_create(GENERATE_BYTES);
    status = tape != NULL ? LB_OK : LB_E_NOMEM;
    while (status == LB_OK && taker.given == LB_OK && lb_generator_left(generator) > 0) {
        status = lb_generator_step(generator, tape, take, &taker);
    }
    if (status == LB_E_NOMEM || status == LB_E_LIMIT) {
        (void)lb_fail(detail, status, "no memory to go on with %lld prompts", (long long)n);
    }
    lb_tape_destroy(tape);
    lb_generator_destroy(generator);
    return status == LB_OK ? taker.given : status;
}

/* One for lb_generate. */
struct single {
    lb_generate_fn fn;
    void *context;
};

static enum lb_status take_single(void *context, int64_t i, int32_t id) {
    (void)i;
    const struct single *single = context;
    return single->fn(single->context, id);
}

enum lb_status lb_generate(const struct lb_model *model, const int32_t *prompt, int64_t n,
                           const struct lb_generate_args *args, lb_generate_fn fn, void *context,
                           struct lb_detail *detail) {
    struct lb_generate_prompt one = {prompt, n, *args};
    struct single single = {fn, context};
    return lb_generate_batch(model, &one, 1, take_single, &single, detail);
}
