#include "server/server.h"

#include "common/base/cgroup.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/nn/gemm.h"
#include "server/api/clients.h"
#include "server/api/table.h"
#include "server/engine/known.h"
#include "server/keys.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* For a request's headers, and before the least rate holds. */
#define GRACE_MS 10000
/* When the time to drain is over: for those who are told so to read it. */
#define CLOSE_SECONDS 1
/* Of the memory limit, computing has a quarter at least and three quarters at most, as the models need. */
#define LEAST_TAPE(limit) ((limit) / 4)
#define MOST_TAPE(limit) ((limit) / 4 * 3)
/* What is kept of sequences has at most this part, and without an option that one. */
#define MOST_KNOWN(limit) ((limit) / 2)
#define USUAL_KNOWN(limit) ((limit) / 16 < ((size_t)256 << 20) ? (limit) / 16 : (size_t)256 << 20)
/* Rows that a model should be able to compute at once, and too few to be of use. */
#define USEFUL_ROWS 4096
#define FEW_ROWS 64

/* ---- start and stop ---- */

/* Computing gets the memory that this model needs for a batch, requests and answers have the rest. */
static void share_memory(struct lb_server *server, const struct lb_hosted *hosted) {
    int64_t longest = lb_model_config(hosted->model)->max_position_embeddings,
            rows = longest > 0 && longest < USEFUL_ROWS ? longest : USEFUL_ROWS;
    rows = rows < server->options->max_batch_tokens ? server->options->max_batch_tokens : rows;
    rows = rows > USEFUL_ROWS ? USEFUL_ROWS : rows;
    size_t need = hosted->base_bytes + (size_t)rows * hosted->row_bytes,
           most = MOST_TAPE(server->memory_limit);
    need = need < most ? need : most;
    if (need > lb_engine_tape_bytes(server->engine)) {
        lb_engine_limit(server->engine, need);
        lb_budget_resize(server->budget, server->memory_limit - need);
    }
    if (hosted->base_bytes + FEW_ROWS * hosted->row_bytes > most) {
        lb_log(
            LB_LOG_WARN, "memory_short",
            "model=%s limit_mib=%zu hint=\"%d tokens need %zu MiB to be computed; raise --memory-limit-mib\"",
            hosted->name, server->memory_limit >> 20, FEW_ROWS,
            (hosted->base_bytes + FEW_ROWS * hosted->row_bytes) >> 20);
    }
}

static void forget(void *context, const struct lb_hosted *hosted) {
    lb_known_forget(context, hosted->instance);
}

static enum lb_status prove(void *context, struct lb_hosted *hosted, struct lb_detail *detail) {
    struct lb_server *server = context;
    enum lb_status status = lb_engine_self_test(server->engine, hosted, detail);
    hosted->gone = forget;
    hosted->gone_context = server->known;
    if (status == LB_OK && !hosted->batch_invariant) {
        lb_log(LB_LOG_WARN, "not_batch_invariant",
               "model=%s kernels=\"%s\" meaning=\"answers depend on the batch in their last bits; caches and "
               "replicas may disagree\"",
               hosted->name, lb_gemm_description());
    }
    if (status == LB_OK) {
        share_memory(server, hosted);
    }
    return status;
}

static enum lb_status write_port_file(const struct lb_server *server, const char *path,
                                      struct lb_detail *detail) {
    char text[200];
    int len = server->listener.port ? snprintf(text, sizeof text, "%d\n", server->listener.port)
                                    : snprintf(text, sizeof text, "%s\n", server->listener.address);
    return lb_file_replace(path, text, (size_t)len, detail);
}

/* On the loader's thread. The port file appears now: whoever waits for it may ask at once. */
static void on_loaded(void *context, enum lb_status status, const struct lb_detail *detail) {
    struct lb_server *server = context;
    struct lb_detail why = {0};
    if (status == LB_OK && server->options->port_file) {
        status = write_port_file(server, server->options->port_file, &why);
        server->port_file_written = status == LB_OK;
        detail = status == LB_OK ? detail : &why;
    }
    if (server->loaded) {
        server->loaded(server->loaded_context, status, detail);
    }
}

/* The models of the command line, in order, then those of the repository folder. */
static enum lb_status list_models(struct lb_repository *repository, const struct lb_options *options,
                                  struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < options->n_models && status == LB_OK; i++) {
        char *name = NULL;
        const char *path = NULL;
        status = lb_options_split(options->models[i], &name, &path, detail);
        if (status == LB_OK) {
            status = lb_repository_add(repository, name, path, true, detail);
        }
        lb_free(name);
    }
    if (status == LB_OK && options->repository) {
        status = lb_repository_add_folder(repository, options->repository, detail);
        if (status == LB_OK && lb_repository_count(repository) == 0) {
            status = lb_fail(detail, LB_E_NOTFOUND,
                             "--repository %s: no subfolder with a config.json and no .gguf file in it",
                             options->repository);
        }
        if (status == LB_OK && options->n_load_models > 0) {
            status = lb_repository_select(repository, options->load_models, options->n_load_models, detail);
        }
    }
    return status;
}

/* What the option says, or half of the memory that the machine, the control group or ulimit allows. */
static size_t memory_limit(const struct lb_options *options) {
    if (options->memory_limit_mib > 0) {
        return (size_t)options->memory_limit_mib << 20;
    }
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    size_t all = pages > 0 && size > 0 ? (size_t)pages * (size_t)size : (size_t)8 << 30;
    size_t group = lb_cgroup_memory("");
    all = group < all ? group : all;
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < all) {
        all = limit.rlim_cur;
    }
    return all / 2;
}

/* As many connections as files may be open, some left for the models. */
static unsigned connection_limit(const struct lb_options *options) {
    struct rlimit limit;
    unsigned most = (unsigned)options->max_connections;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return most < 256 ? most : 256;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return most < 256 ? most : 256;
    }
    rlim_t spare = limit.rlim_cur > 128 ? limit.rlim_cur - 64 : limit.rlim_cur / 2;
    return limit.rlim_cur == RLIM_INFINITY || spare > most ? most : (unsigned)spare;
}

/* Takes what is kept of sequences from the memory limit. */
static enum lb_status start_known(struct lb_server *server, const struct lb_options *options,
                                  struct lb_detail *detail) {
    size_t limit = server->memory_limit;
    size_t bytes = options->state_cache_mib < 0 ? USUAL_KNOWN(limit) : (size_t)options->state_cache_mib << 20;
    if (bytes > MOST_KNOWN(limit)) {
        return lb_fail(detail, LB_E_ARG,
                       "--state-cache-mib %lld: more than half of the %zu MiB that there are beside the "
                       "weights (--memory-limit-mib)",
                       (long long)options->state_cache_mib, limit >> 20);
    }
    server->known = lb_known_create(bytes, UINT64_MAX);
    server->memory_limit = limit - bytes;
    return server->known ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory while starting");
}

static enum lb_status start_parts(struct lb_server *server, const struct lb_options *options,
                                  struct lb_detail *detail) {
    enum lb_status status = start_known(server, options, detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_batcher_args args = {.max_batch_tokens = options->max_batch_tokens,
                                   .max_wait_ns = (uint64_t)options->max_wait_us * 1000,
                                   .max_queue_tokens = options->max_queue_tokens,
                                   .max_queue_jobs = (size_t)options->max_queue_requests,
                                   .max_batch_bytes = LEAST_TAPE(server->memory_limit),
                                   .known = server->known};
    server->budget = lb_budget_create(server->memory_limit - LEAST_TAPE(server->memory_limit));
    server->metrics = lb_metrics_create();
    server->clients = lb_clients_create();
    server->batcher = lb_batcher_create(&args);
    server->engine = server->batcher ? lb_engine_create(server->batcher, server->metrics, server->known,
                                                        LEAST_TAPE(server->memory_limit))
                                     : NULL;
    server->writer = server->engine ? lb_writer_create(server->engine, server->metrics) : NULL;
    server->repository = lb_repository_create(prove, server);
    server->auth = lb_auth_create();
    if (!server->budget || !server->metrics || !server->clients || !server->batcher || !server->writer ||
        !server->repository || !server->auth) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting");
    }
    status = list_models(server->repository, options, detail);
    if (status == LB_OK) {
        status = lb_auth_load(server->auth, options->token_file, options->admin_token_file, detail);
    }
    if (status == LB_OK) {
        status = lb_engine_start(server->engine, detail);
    }
    return status == LB_OK ? lb_writer_start(server->writer, detail) : status;
}

/* The socket that was handed over, else the address of the options. */
static enum lb_status open_listener(struct lb_server *server, const struct lb_options *options,
                                    struct lb_detail *detail) {
    bool handed_over = false;
    enum lb_status status = lb_listen_inherit(&handed_over, &server->listener, detail);
    if (status == LB_OK && handed_over && options->listen_given) {
        return lb_fail(
            detail, LB_E_ARG,
            "--listen %s, and a socket was handed over as well (LISTEN_FDS); leave one of them out",
            options->listen);
    }
    if (status == LB_OK && !handed_over) {
        status = lb_listen(options->listen, &server->listener, detail);
    }
    if (status == LB_OK) {
        status = lb_keys_guard(options, handed_over ? server->listener.address : options->listen,
                               server->listener.loopback, detail);
    }
    return status;
}

static enum lb_status start_http(struct lb_server *server, const struct lb_options *options,
                                 struct lb_detail *detail) {
    struct lb_tls *tls = NULL;
    if (options->port_file) {
        unlink(options->port_file); /* left by one that was killed: who waits for it would take it for ours */
    }
    enum lb_status status = lb_keys_open(options, &tls, detail);
    if (status == LB_OK) {
        status = open_listener(server, options, detail);
    }
    if (status == LB_OK) {
        unsigned connections = connection_limit(options);
        int64_t per_address = options->max_connections_per_address;
        struct lb_http_args args = {.listen_fd = server->listener.fd,
                                    .tls = tls,
                                    .threads = options->http_threads,
                                    .codec_threads = options->codec_threads,
                                    .max_connections = connections,
                                    .max_connections_per_client = per_address > 0
                                                                      ? (unsigned)per_address
                                                                      : connections - connections / 4,
                                    .idle_seconds = (unsigned)options->idle_s,
                                    .grace_ms = GRACE_MS,
                                    .least_rate = (unsigned)options->least_rate_kib << 10,
                                    .max_body_bytes = LB_MAX_BODY_BYTES,
                                    .budget = server->budget,
                                    .app = lb_api(server)};
        status = lb_http_start(&args, &server->http, detail);
        server->listener.fd = status == LB_OK ? -1 : server->listener.fd;
    }
    if (status != LB_OK) {
        lb_tls_release(tls);
    }
    return status;
}

static void warn_of_network(const struct lb_server *server) {
    const struct lb_options *options = server->options;
    const char *address = server->listener.address;
    if (server->listener.loopback) {
        return;
    }
    if (!options->token_file && !options->tls_client_ca) {
        lb_log(LB_LOG_WARN, "open_to_network", "address=%s hint=\"anybody can ask; give --token-file\"",
               address);
    }
    if (!options->tls_certificate) {
        lb_log(LB_LOG_WARN, "plain_to_network",
               "address=%s hint=\"tokens and texts can be read on their way; give --tls-certificate and "
               "--tls-key\"",
               address);
    }
}

enum lb_status lb_server_start(struct lb_server *server, const struct lb_options *options,
                               void (*loaded)(void *context, enum lb_status status,
                                              const struct lb_detail *detail),
                               void *context, struct lb_detail *detail) {
    memset(server, 0, sizeof *server);
    server->options = options;
    server->listener.fd = -1;
    server->started_unix = lb_unix_seconds();
    server->loaded = loaded;
    server->loaded_context = context;
    atomic_init(&server->draining, false);
    server->memory_limit = memory_limit(options);
    enum lb_status status = start_parts(server, options, detail);
    if (status == LB_OK) {
        status = start_http(server, options, detail);
    }
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "listening", "address=%s tls=%s tokens=%s models=%zu version=%s kernels=\"%s\"",
               server->listener.address, options->tls_certificate ? "true" : "false",
               options->token_file ? "true" : "false", lb_repository_count(server->repository), LB_VERSION,
               lb_gemm_description());
        warn_of_network(server);
        status = lb_repository_start(server->repository, on_loaded, detail);
    }
    if (status != LB_OK) {
        lb_server_stop(server);
    }
    return status;
}

/* ---- read anew ---- */

static void tell_kept(const struct lb_detail *detail, const char *what) {
    lb_log(LB_LOG_WARN, "reload_failed", "reason=\"%s\" kept=\"%s\"", detail->text, what);
}

void lb_server_reload(struct lb_server *server) {
    const struct lb_options *options = server->options;
    struct lb_detail tokens = {0}, keys = {0};
    struct lb_tls *tls = NULL;
    if (lb_auth_load(server->auth, options->token_file, options->admin_token_file, &tokens) != LB_OK) {
        tell_kept(&tokens, "the tokens that were known");
    }
    if (lb_keys_open(options, &tls, &keys) != LB_OK) {
        tell_kept(&keys, "the certificate that was shown");
    } else if (tls) {
        lb_http_change_tls(server->http, tls);
    }
    lb_log(LB_LOG_INFO, "reloaded", "tokens=%zu", lb_auth_count(server->auth));
}

void lb_server_touch(struct lb_server *server) {
    (void)lb_batcher_state(server->batcher);
    (void)lb_budget_used(server->budget);
    (void)lb_auth_count(server->auth);
}

/* ---- stop ---- */

/* Answers what is queued, or tells it off when time is up. */
static void drain(struct lb_server *server, uint64_t until) {
    struct lb_batcher_state left = lb_batcher_state(server->batcher);
    struct lb_writer_state texts = lb_writer_state(server->writer);
    lb_writer_close(server->writer, until);
    lb_batcher_close(server->batcher);
    lb_http_drain(server->http);
    /* Said when it is so: whoever reads it may count on it. */
    lb_log(LB_LOG_INFO, "draining", "requests=%zu tokens=%lld limit_s=%lld", left.jobs + texts.requests,
           (long long)(left.waiting_tokens + left.running_tokens + texts.tokens),
           (long long)server->options->drain_s);
    size_t cut = 0;
    if (!lb_batcher_wait_empty(server->batcher, until)) {
        cut = lb_batcher_state(server->batcher).jobs;
        lb_batcher_abort(server->batcher); /* texts behind jobs are waited for */
    }
    cut += lb_writer_join(server->writer); /* before the worker leaves, which computes for it */
    if (cut > 0) {
        lb_log(LB_LOG_WARN, "drain_cut_short", "requests=%zu", cut);
    }
    lb_batcher_abort(server->batcher);
}

void lb_server_stop(struct lb_server *server) {
    uint64_t until = lb_now_ns() + (uint64_t)server->options->drain_s * LB_SECOND_NS;
    atomic_store(&server->draining, true);
    if (server->http) {
        drain(server, until);
    } else if (server->batcher) {
        lb_writer_close(server->writer, 0);
        (void)lb_writer_join(server->writer);
        lb_batcher_abort(server->batcher);
    }
    lb_engine_join(server->engine);
    if (server->repository) {
        lb_repository_stop(server->repository);
    }
    /* From here on nothing is deferred; answers are still being sent. */
    if (server->http) {
        uint64_t least = lb_now_ns() + CLOSE_SECONDS * LB_SECOND_NS;
        if (!lb_http_wait_idle(server->http, until > least ? until : least)) {
            lb_log(LB_LOG_WARN, "answers_cut_short", "requests=%u", lb_http_exchanges(server->http));
        }
        lb_http_stop(server->http);
        server->http = NULL;
    }
    lb_listener_close(&server->listener);
    lb_repository_destroy(server->repository);
    lb_writer_destroy(server->writer);
    lb_engine_destroy(server->engine);
    lb_batcher_destroy(server->batcher);
    lb_known_destroy(server->known);
    lb_clients_destroy(server->clients);
    lb_metrics_destroy(server->metrics);
    lb_budget_destroy(server->budget);
    lb_auth_destroy(server->auth);
    if (server->port_file_written) {
        unlink(server->options->port_file);
    }
}

/* ---- --check ---- */

static enum lb_status prove_here(void *context, struct lb_hosted *hosted, struct lb_detail *detail) {
    struct lb_server *server = context;
    enum lb_status status = lb_engine_self_test(server->engine, hosted, detail);
    if (status == LB_OK && !hosted->batch_invariant) {
        status = lb_fail(detail, LB_E_MISMATCH,
                         "model %s: a sequence's answer depends on what it is batched with (kernels: %s)",
                         hosted->name, lb_gemm_description());
    }
    return status;
}

/* What would stop the daemon from listening, as far as it can be told without doing so. */
static enum lb_status check_access(const struct lb_options *options, struct lb_detail *detail) {
    struct lb_tls *tls = NULL;
    struct lb_auth *auth = lb_auth_create();
    bool loopback = false;
    enum lb_status status = lb_listen_check(options->listen, &loopback, detail);
    if (status == LB_OK) {
        status = lb_keys_guard(options, options->listen, loopback, detail);
    }
    if (status == LB_OK) {
        status = lb_keys_open(options, &tls, detail);
    }
    if (status == LB_OK) {
        status = auth ? lb_auth_load(auth, options->token_file, options->admin_token_file, detail)
                      : lb_fail(detail, LB_E_NOMEM, "out of memory while reading tokens");
    }
    lb_auth_destroy(auth);
    lb_tls_release(tls);
    return status;
}

enum lb_status lb_server_check(const struct lb_options *options, struct lb_detail *detail) {
    struct lb_server server = {.options = options};
    server.engine = lb_engine_create(NULL, NULL, NULL, memory_limit(options));
    server.repository = lb_repository_create(prove_here, &server);
    enum lb_status status = server.engine && server.repository
                                ? list_models(server.repository, options, detail)
                                : lb_fail(detail, LB_E_NOMEM, "out of memory while starting");
    if (status == LB_OK) {
        status = check_access(options, detail);
    }
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "checking", "models=%zu kernels=\"%s\"", lb_repository_count(server.repository),
               lb_gemm_description());
        status = lb_repository_open_all(server.repository, detail);
    }
    lb_repository_destroy(server.repository);
    lb_engine_destroy(server.engine);
    return status;
}
