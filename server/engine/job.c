#include "server/engine/job.h"

#include "common/base/mem.h"
#include "server/models/repository.h"

struct lb_job *lb_job_create(size_t max_arena_bytes) {
    struct lb_job *job = lb_calloc(1, sizeof *job);
    if (job) {
        lb_arena_init(&job->arena, max_arena_bytes);
    }
    return job;
}

void lb_job_destroy(struct lb_job *job) {
    if (!job) {
        return;
    }
    for (size_t i = 0; i < job->n_outputs; i++) {
        lb_free(job->outputs[i].data);
    }
    lb_free(job->states);
    lb_kept_ids_release(job->map);
    lb_hosted_release(job->model);
    lb_arena_finish(&job->arena);
    lb_free(job);
}

size_t lb_job_json_numbers(const struct lb_job *job) {
    size_t n = 0;
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_job_output *o = &job->outputs[i];
        n += o->binary ? 0 : o->bytes / lb_datatype_bytes(o->datatype);
    }
    return n;
}

enum lb_status lb_job_allocate(struct lb_job *job) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        struct lb_job_output *o = &job->outputs[i];
        if (!o->data && o->bytes > 0 && !o->streamed) {
            o->data = lb_calloc(o->bytes, 1);
            if (!o->data) {
                return LB_E_NOMEM;
            }
        }
    }
    if (job->kept && !job->states) {
        job->states = lb_malloc_array(job->state_bytes, 1);
        return job->states ? LB_OK : LB_E_NOMEM;
    }
    return LB_OK;
}
