#include "server/server.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/nn/gemm.h"
#include "server/api/table.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define HTTP_THREADS 2
#define MAX_CONNECTIONS 4096
#define IDLE_SECONDS 120
#define MAX_PEM_BYTES ((size_t)1 << 20)
/* After the queue is empty: time for clients to read their answers. */
#define CLOSE_SECONDS 5

/* ---- start and stop ---- */

static enum lb_status prove(void *context, struct lb_hosted *hosted, struct lb_detail *detail) {
    struct lb_server *server = context;
    enum lb_status status = lb_engine_self_test(server->engine, hosted, &hosted->batch_invariant, detail);
    if (status == LB_OK && !hosted->batch_invariant) {
        lb_log(LB_LOG_WARN, "not_batch_invariant",
               "model=%s kernels=\"%s\" meaning=\"answers depend on the batch in their last bits; caches and "
               "replicas may disagree\"",
               hosted->name, lb_gemm_description());
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
    }
    return status;
}

/* Half of the machine's memory is what one batch may use. */
static size_t tape_bytes(void) {
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (size_t)pages / 2 * (size_t)size : (size_t)4 << 30;
}

/* As many connections as files may be open, some left for the models. */
static unsigned connection_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 256;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 256;
    }
    rlim_t spare = limit.rlim_cur > 128 ? limit.rlim_cur - 64 : limit.rlim_cur / 2;
    return limit.rlim_cur == RLIM_INFINITY || spare > MAX_CONNECTIONS ? MAX_CONNECTIONS : (unsigned)spare;
}

static enum lb_status start_parts(struct lb_server *server, const struct lb_options *options,
                                  struct lb_detail *detail) {
    struct lb_batcher_args args = {options->max_batch_tokens, (uint64_t)options->max_wait_us * 1000,
                                   options->max_queue_tokens};
    server->metrics = lb_metrics_create();
    server->batcher = lb_batcher_create(&args);
    server->engine =
        server->batcher ? lb_engine_create(server->batcher, server->metrics, tape_bytes()) : NULL;
    server->repository = lb_repository_create(prove, server);
    if (!server->metrics || !server->batcher || !server->engine || !server->repository) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting");
    }
    enum lb_status status = list_models(server->repository, options, detail);
    if (status == LB_OK && options->token_file) {
        status = lb_auth_open(options->token_file, &server->auth, detail);
    }
    if (status == LB_OK && options->admin_token_file) {
        status = lb_auth_open(options->admin_token_file, &server->admin_auth, detail);
    }
    return status == LB_OK ? lb_engine_start(server->engine, detail) : status;
}

static enum lb_status start_http(struct lb_server *server, const struct lb_options *options,
                                 struct lb_detail *detail) {
    struct lb_buf certificate, key;
    lb_buf_init(&certificate, MAX_PEM_BYTES);
    lb_buf_init(&key, MAX_PEM_BYTES);
    enum lb_status status = LB_OK;
    if (options->tls_certificate) {
        status = lb_file_read(options->tls_certificate, &certificate, detail);
    }
    if (status == LB_OK && options->tls_key) {
        status = lb_file_read(options->tls_key, &key, detail);
    }
    if (status == LB_OK) {
        status = lb_listen(options->listen, &server->listener, detail);
    }
    if (status == LB_OK) {
        struct lb_http_args args = {.listen_fd = server->listener.fd,
                                    .certificate = certificate.data,
                                    .key = key.data,
                                    .threads = HTTP_THREADS,
                                    .max_connections = connection_limit(),
                                    .idle_seconds = IDLE_SECONDS,
                                    .max_body_bytes = LB_MAX_BODY_BYTES,
                                    .budget = &server->budget,
                                    .app = lb_api(server)};
        status = lb_http_start(&args, &server->http, detail);
        server->listener.fd = status == LB_OK ? -1 : server->listener.fd;
    }
    if (key.data) {
        explicit_bzero(key.data, key.len);
    }
    lb_buf_finish(&key);
    lb_buf_finish(&certificate);
    return status;
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
    lb_budget_init(&server->budget, (size_t)options->max_pending_mib << 20);
    enum lb_status status = start_parts(server, options, detail);
    if (status == LB_OK) {
        status = start_http(server, options, detail);
    }
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "listening", "address=%s tls=%s tokens=%s models=%zu version=%s kernels=\"%s\"",
               server->listener.address, options->tls_certificate ? "true" : "false",
               server->auth ? "true" : "false", lb_repository_count(server->repository), LB_VERSION,
               lb_gemm_description());
        if (!server->auth && !server->listener.loopback) {
            lb_log(LB_LOG_WARN, "open_to_network", "address=%s hint=\"anybody can ask; give --token-file\"",
                   server->listener.address);
        }
        status = lb_repository_start(server->repository, on_loaded, detail);
    }
    if (status != LB_OK) {
        lb_server_stop(server);
    }
    return status;
}

/* Answers what is queued, or tells it off when time is up. */
static void drain(struct lb_server *server) {
    uint64_t until = lb_now_ns() + (uint64_t)server->options->drain_s * LB_SECOND_NS;
    struct lb_batcher_state left = lb_batcher_state(server->batcher);
    lb_log(LB_LOG_INFO, "draining", "requests=%zu tokens=%lld limit_s=%lld", left.jobs,
           (long long)(left.waiting_tokens + left.running_tokens), (long long)server->options->drain_s);
    lb_batcher_close(server->batcher);
    lb_http_drain(server->http);
    if (!lb_batcher_wait_empty(server->batcher, until)) {
        lb_log(LB_LOG_WARN, "drain_cut_short", "requests=%zu", lb_batcher_state(server->batcher).jobs);
    }
    lb_batcher_abort(server->batcher);
}

void lb_server_stop(struct lb_server *server) {
    atomic_store(&server->draining, true);
    if (server->http) {
        drain(server);
    } else if (server->batcher) {
        lb_batcher_abort(server->batcher);
    }
    lb_engine_join(server->engine);
    if (server->repository) {
        lb_repository_stop(server->repository);
    }
    /* From here on nothing is suspended. */
    if (server->http) {
        lb_http_wait_idle(server->http, lb_now_ns() + CLOSE_SECONDS * LB_SECOND_NS);
        lb_http_stop(server->http);
        server->http = NULL;
    }
    lb_listener_close(&server->listener);
    lb_repository_destroy(server->repository);
    lb_engine_destroy(server->engine);
    lb_batcher_destroy(server->batcher);
    lb_metrics_destroy(server->metrics);
    lb_auth_destroy(server->auth);
    lb_auth_destroy(server->admin_auth);
    if (server->port_file_written) {
        unlink(server->options->port_file);
    }
}

/* ---- --check ---- */

static enum lb_status prove_here(void *context, struct lb_hosted *hosted, struct lb_detail *detail) {
    struct lb_server *server = context;
    enum lb_status status = lb_engine_run_self_test(server->engine, hosted, &hosted->batch_invariant, detail);
    if (status == LB_OK && !hosted->batch_invariant) {
        status = lb_fail(detail, LB_E_MISMATCH,
                         "model %s: a sequence's answer depends on what it is batched with (kernels: %s)",
                         hosted->name, lb_gemm_description());
    }
    return status;
}

enum lb_status lb_server_check(const struct lb_options *options, struct lb_detail *detail) {
    struct lb_server server = {.options = options};
    server.engine = lb_engine_create(NULL, NULL, tape_bytes());
    server.repository = lb_repository_create(prove_here, &server);
    enum lb_status status = server.engine && server.repository
                                ? list_models(server.repository, options, detail)
                                : lb_fail(detail, LB_E_NOMEM, "out of memory while starting");
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "checking", "models=%zu kernels=\"%s\"", lb_repository_count(server.repository),
               lb_gemm_description());
        status = lb_repository_open_all(server.repository, detail);
    }
    lb_repository_destroy(server.repository);
    lb_engine_destroy(server.engine);
    return status;
}
