/* GET /metrics: what is counted, and what is read at the moment of asking. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/nn/gemm.h"
#include "server/api/reply.h"
#include "server/api/table.h"
#include "server/engine/known.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define FIXED_GAUGES 16

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

/* Bytes of this process in memory, 0 when the system doesn't say. */
static double resident_bytes(void) {
    char text[128] = "";
    FILE *file = fopen("/proc/self/statm", "re");
    bool read = file && fgets(text, sizeof text, file);
    const char *second = read ? strchr(text, ' ') : NULL; /* in pages */
    if (file) {
        fclose(file);
    }
    return second ? (double)strtoll(second, NULL, 10) * (double)sysconf(_SC_PAGESIZE) : 0;
}

static double cpu_seconds(void) {
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* What the daemon as a whole is at; returns how many. */
static size_t daemon_gauges(struct lb_server *server, struct lb_gauge out[FIXED_GAUGES]) {
    struct lb_batcher_state queue = lb_batcher_state(server->batcher);
    struct lb_known_state known = lb_known_state(server->known);
    const struct lb_gauge all[] = {
        {"limbeckd_queue_tokens", "Tokens waiting.", (double)queue.waiting_tokens},
        {"limbeckd_running_tokens", "Tokens in the batch that is being computed.",
         (double)queue.running_tokens},
        {"limbeckd_queue_requests", "Requests to a model that wait for all or the rest of their batches.",
         queue.jobs > queue.running_jobs ? (double)(queue.jobs - queue.running_jobs) : 0},
        {"limbeckd_running_requests", "Requests to a model in the batch that is being computed.",
         (double)queue.running_jobs},
        {"limbeckd_open_requests", "HTTP requests that are not answered yet.",
         (double)lb_http_exchanges(server->http)},
        {"limbeckd_pending_bytes", "Bytes of request bodies and answers in memory.",
         (double)lb_budget_used(server->budget)},
        {"limbeckd_known_bytes", "Bytes of sequences' states that are kept.", (double)known.bytes},
        {"limbeckd_known_max_bytes", "Most bytes of sequences' states that are kept.",
         (double)known.max_bytes},
        {"limbeckd_known_sequences", "Sequences of which states are kept.", (double)known.sequences},
        {"limbeckd_awaited_sequences", "Unlike sequences that requests wait for.", (double)known.waited},
        {"limbeckd_connections", "Open connections.", (double)lb_http_connections(server->http)},
        {"limbeckd_ready", "1 when all models are loaded and nothing is shutting down.",
         lb_repository_ready(server->repository) && !atomic_load(&server->draining)},
        {"process_start_time_seconds", "Start of the process since 1970.", server->started_unix},
        {"process_cpu_seconds_total", "Processor time of all threads.", cpu_seconds(), .counter = true},
        {"process_resident_memory_bytes", "Memory of the process, mapped weights and all.", resident_bytes()},
        {"limbeckd_build_info", "1; what this program is.", 1,
         .labels = {{"version", LB_VERSION}, {"compiler", COMPILER}, {"kernels", lb_gemm_description()}}}};
    _Static_assert(sizeof all == FIXED_GAUGES * sizeof *all, "there is room for all");
    for (size_t i = 0; i < FIXED_GAUGES; i++) {
        out[i] = all[i];
    }
    return FIXED_GAUGES;
}

/* Three of each model, the families one after the other; parameters: room for its number. */
static void model_gauges(struct lb_hosted **models, size_t n, char (*parameters)[24], struct lb_gauge *out) {
    for (size_t i = 0; i < n; i++) {
        struct lb_hosted *m = models[i];
        snprintf(parameters[i], sizeof parameters[i], "%lld", (long long)lb_model_parameters(m->model));
        out[i] = (struct lb_gauge){"limbeckd_model_bytes", "Bytes of a loaded model's weights as stored.",
                                   (double)lb_model_bytes(m->model), .labels = {{"model", m->name}}};
        out[n + i] = (struct lb_gauge){"limbeckd_model_info", "1 for each loaded model.", 1,
                                       .labels = {{"model", m->name},
                                                  {"fingerprint", m->version},
                                                  {"compute", m->compute},
                                                  {"architecture", lb_model_config(m->model)->model_type},
                                                  {"parameters", parameters[i]}}};
        out[2 * n + i] =
            (struct lb_gauge){"limbeckd_vocab_map_bytes", "Bytes of vocabulary maps that clients have sent.",
                              (double)lb_vocab_maps_bytes(&m->maps), .labels = {{"model", m->name}}};
    }
}

/* One of each model that is listed, served or not; the index holds their names. */
static void state_gauges(const json_t *index, struct lb_gauge *out) {
    for (size_t i = 0; i < json_array_size(index); i++) {
        const json_t *item = json_array_get(index, i);
        bool ready = strcmp(json_string_value(json_object_get(item, "state")), "READY") == 0;
        out[i] = (struct lb_gauge){"limbeckd_model_ready",
                                   "1 for a model that is served, 0 for one that is not (yet).", ready,
                                   .labels = {{"model", json_string_value(json_object_get(item, "name"))}}};
    }
}

/* Writes everything to out. */
static enum lb_status write_all(struct lb_server *server, struct lb_hosted **models, size_t n_models,
                                struct lb_buf *out) {
    json_t *index = lb_repository_index(server->repository, false);
    size_t n_listed = json_array_size(index), most = FIXED_GAUGES + 3 * n_models + n_listed;
    struct lb_gauge *gauges = lb_malloc_array(most, sizeof *gauges);
    char(*parameters)[24] = lb_malloc_array(n_models + 1, sizeof *parameters);
    enum lb_status status = LB_E_NOMEM;
    if (index && gauges && parameters) {
        size_t n = daemon_gauges(server, gauges);
        model_gauges(models, n_models, parameters, gauges + n);
        state_gauges(index, gauges + n + 3 * n_models);
        status = lb_metrics_write(server->metrics, gauges, most, out);
    }
    lb_free(parameters);
    lb_free(gauges);
    json_decref(index);
    return status;
}

void lb_handle_metrics(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    struct lb_hosted **models = NULL;
    size_t n_models = 0;
    enum lb_status status = lb_repository_list(server->repository, &models, &n_models);
    if (status == LB_OK) {
        /* The body's buffer is free by now and lives long enough. */
        lb_buf_reset(&x->body);
        status = write_all(server, models, n_models, &x->body);
    }
    for (size_t i = 0; i < n_models; i++) {
        lb_hosted_release(models[i]);
    }
    lb_free(models);
    if (status != LB_OK) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    lb_reply_bytes(x, 200, "text/plain; version=0.0.4; charset=utf-8", x->body.data, x->body.len);
}
