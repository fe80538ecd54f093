/* A model's numbers for tests/interop: run_model MODEL IN.safetensors OUT.safetensors [--train]
 *
 * IN holds ids (I32 [N + 1]): a sequence of N and, one further on, its labels; of a model without logits
 * states_target (F32 [N, C]) beside ids of N. OUT has logits, hidden_states.N, attentions.N; with --train the
 * gradient of each weight under its name: of the mean cross entropy, or of the sum of final states times
 * states_target. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/formats/safetensors.h"
#include "common/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAPE_BYTES ((size_t)1 << 31)
#define MAX_TENSORS 4096
#define MAX_TAPS 256

struct run {
    struct lb_model *model;
    struct lb_safetensors *given;
    struct lb_tape *tape;
    const int32_t *ids;
    int64_t n, v;
    bool train;
    float *logits; /* [n, v] */
    struct lb_tensor out[MAX_TENSORS];
    size_t n_out;
    char names[MAX_TAPS][32];
};

static void put(struct run *r, const char *name, const float *data, int n_dims, const int64_t *dim) {
    struct lb_tensor *t = &r->out[r->n_out++];
    *t = (struct lb_tensor){
        .name = name, .dtype = LB_F32, .n_dims = n_dims, .data = data, .bytes = sizeof *data};
    for (int i = 0; i < n_dims; i++) {
        t->dim[i] = dim[i];
        t->bytes *= (size_t)dim[i];
    }
}

/* Keeps rows of logits, or makes them the gradient of the mean cross entropy. */
static enum lb_status take_rows(void *context, int64_t row, int64_t n, float *z) {
    struct run *r = context;
    memcpy(r->logits + row * r->v, z, (size_t)(n * r->v) * sizeof *z);
    for (int64_t i = 0; r->train && i < n; i++) {
        float *zi = z + i * r->v;
        double most = zi[0], sum = 0;
        for (int64_t j = 1; j < r->v; j++) {
            most = fmax(most, zi[j]);
        }
        for (int64_t j = 0; j < r->v; j++) {
            sum += exp(zi[j] - most);
        }
        for (int64_t j = 0; j < r->v; j++) {
            double p = exp(zi[j] - most) / sum;
            zi[j] = (float)((p - (j == r->ids[row + i + 1])) / (double)r->n);
        }
    }
    return LB_OK;
}

static enum lb_status run_forward(struct run *r, struct lb_detail *detail) {
    struct lb_tap taps[MAX_TAPS];
    size_t n_taps = 0;
    const struct lb_config *c = lb_model_config(r->model);
    int32_t offsets[2] = {0, (int32_t)r->n};
    struct lb_input in = {.ragged = {1, offsets}, .ids = r->ids};
    for (int l = 0; !r->train && l <= c->num_hidden_layers; l++) {
        taps[n_taps++] = (struct lb_tap){LB_TAP_HIDDEN, l, NULL};
    }
    for (int l = 0; !r->train && l < c->num_hidden_layers; l++) {
        taps[n_taps++] = (struct lb_tap){LB_TAP_ATTENTION, l, NULL};
    }
    lb_tape_begin(r->tape, r->train ? LB_TAPE_TRAIN : LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(r->model, r->tape, &in, taps, n_taps, NULL);
    const struct lb_head *head = lb_model_head(r->model);
    enum lb_status status = lb_tape_status(r->tape);
    if (status == LB_OK && head->weight != NULL) {
        r->v = head->weight->rows;
        r->logits = lb_calloc((size_t)(r->n * r->v), sizeof *r->logits);
        status = r->logits != NULL ? lb_head_run(r->tape, h, head, NULL, take_rows, r) : LB_E_NOMEM;
        put(r, "logits", r->logits, 2, (const int64_t[]){r->n, r->v});
    } else if (status == LB_OK && r->train) {
        const struct lb_tensor *target = lb_safetensors_find(r->given, "states_target");
        if (target == NULL || !lb_grad_fresh(r->tape, h) ||
            target->bytes != (size_t)(h->rows * h->cols) * 4) {
            return lb_fail(detail, LB_E_ARG, "states_target does not fit");
        }
        memcpy(h->grad, target->data, target->bytes);
    }
    for (size_t i = 0; status == LB_OK && i < n_taps; i++) {
        const struct lb_value *v = taps[i].value;
        bool hidden = taps[i].kind == LB_TAP_HIDDEN;
        snprintf(r->names[i], sizeof r->names[i], "%s.%d", hidden ? "hidden_states" : "attentions",
                 taps[i].layer);
        put(r, r->names[i], v->data, hidden ? 2 : 3,
            hidden ? (const int64_t[]){v->rows, v->cols}
                   : (const int64_t[]){c->num_attention_heads, r->n, r->n});
    }
    status = status == LB_OK && r->train ? lb_tape_backward(r->tape) : status;
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "forward: %s", lb_status_name(status));
}

static enum lb_status run(struct run *r, char **argv, struct lb_detail *detail) {
    enum lb_status status = lb_model_open(argv[1], r->train, &r->model, detail);
    if (status == LB_OK) {
        lb_model_disable_dropout(r->model); /* as PyTorch's in eval() */
    }
    status = status == LB_OK ? lb_safetensors_open(argv[2], &r->given, detail) : status;
    if (status != LB_OK) {
        return status;
    }
    const struct lb_tensor *ids = lb_safetensors_find(r->given, "ids");
    r->tape = lb_tape_create(TAPE_BYTES);
    if (ids == NULL || ids->dtype != LB_I32 || r->tape == NULL) {
        return lb_fail(detail, LB_E_ARG, "%s: no ids", argv[2]);
    }
    r->ids = ids->data;
    r->n = ids->dim[0] - (lb_model_head(r->model)->weight != NULL);
    status = run_forward(r, detail);
    size_t n = 0;
    const struct lb_weight *w = lb_model_weights(r->model, &n);
    for (size_t i = 0; status == LB_OK && r->train && i < n && r->n_out < MAX_TENSORS; i++) {
        put(r, w[i].name, w[i].grad, 2, (const int64_t[]){w[i].rows, w[i].cols});
    }
    return status == LB_OK ? lb_safetensors_write(argv[3], r->out, r->n_out, NULL, 0, detail) : status;
}

int main(int argc, char **argv) {
    static struct run r;
    struct lb_detail detail = {0};
    if (argc < 4) {
        fprintf(stderr, "usage: run_model MODEL IN.safetensors OUT.safetensors [--train]\n");
        return 2;
    }
    r.train = argc > 4 && strcmp(argv[4], "--train") == 0;
    enum lb_status status = run(&r, argv, &detail);
    if (status != LB_OK) {
        fprintf(stderr, "run_model: %s\n", detail.text);
    }
    lb_free(r.logits);
    lb_tape_destroy(r.tape);
    lb_safetensors_destroy(r.given);
    lb_model_destroy(r.model);
    return status != LB_OK;
}
