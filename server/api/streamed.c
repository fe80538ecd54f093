#include "server/api/streamed.h"

#include "server/engine/stream.h"

struct streamed {
    const struct lb_job *job;
    struct lb_span head;
    bool begun;
    size_t output; /* the next one, or that which is being made */
    struct lb_logits_stream *logits;
    struct lb_sha256 *hash; /* NULL: no digest is asked for, or it is out */
    uint8_t digest[LB_SHA256_BYTES];
    struct lb_span part;
};

/* The next bytes of the tensors; len 0 behind the last. False: out of memory. */
static bool next_of_tensors(struct streamed *s, struct lb_span *out) {
    *out = (struct lb_span){NULL, 0};
    while (s->output < s->job->n_outputs && out->len == 0) {
        const struct lb_job_output *o = &s->job->outputs[s->output];
        if (!o->streamed) {
            *out = o->binary ? (struct lb_span){o->data, o->bytes} : *out;
            s->output++;
            continue;
        }
        s->logits = s->logits ? s->logits : lb_logits_stream_create(s->job, o);
        out->data = s->logits ? lb_logits_stream_next(s->logits, &out->len) : NULL;
        if (!out->data) {
            return false;
        }
        if (out->len == 0) {
            lb_logits_stream_destroy(s->logits);
            s->logits = NULL;
            s->output++;
        }
    }
    return true;
}

static bool next(struct lb_exchange *x) {
    struct streamed *s = ((struct lb_visit *)x->user)->stream;
    s->part = s->head;
    if (s->begun && !next_of_tensors(s, &s->part)) {
        return false;
    }
    s->begun = true;
    if (s->part.len > 0 && s->hash) {
        lb_sha256_update(s->hash, s->part.data, s->part.len);
    } else if (s->part.len == 0 && s->hash) {
        lb_sha256_final(s->hash, s->digest);
        s->hash = NULL;
        s->part = (struct lb_span){s->digest, sizeof s->digest};
    }
    x->reply.parts = &s->part;
    x->reply.n_parts = 1;
    return s->part.len > 0;
}

static void end(void *stream) {
    struct streamed *s = stream;
    lb_logits_stream_destroy(s->logits);
    if (s->hash) {
        lb_sha256_final(s->hash, s->digest);
    }
}

bool lb_reply_streamed(struct lb_exchange *x, const struct lb_infer_response *response, const char *head,
                       size_t len) {
    struct lb_visit *visit = x->user;
    struct streamed *s = lb_arena_zarray(&x->arena, 1, sizeof *s);
    struct lb_sha256 *hash = s && response->digest_of ? lb_answer_digest_begin(response) : NULL;
    if (!s || (response->digest_of && !hash)) {
        return false;
    }
    *s = (struct streamed){.job = visit->job, .head = {head, len}, .hash = hash};
    x->reply.total_bytes = len + (hash ? LB_SHA256_BYTES : 0);
    for (size_t i = 0; i < visit->job->n_outputs; i++) {
        x->reply.total_bytes += visit->job->outputs[i].binary ? visit->job->outputs[i].bytes : 0;
    }
    x->reply.parts = NULL;
    x->reply.n_parts = 0;
    x->reply.next = next;
    x->heavy = true;
    visit->stream = s;
    visit->stream_end = end;
    return true;
}
