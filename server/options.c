#include "server/options.h"

#include "common/base/mem.h"
#include "common/base/memo.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

#define DEFAULT_LISTEN "127.0.0.1:8500"
#define DEFAULT_BATCH_TOKENS 4096
#define DEFAULT_WAIT_US 500
#define DEFAULT_QUEUE_TOKENS 1048576
#define DEFAULT_QUEUE_REQUESTS 4096
#define DEFAULT_TIMEOUT_S 600
#define DEFAULT_DRAIN_S 30
#define DEFAULT_HTTP_THREADS 2
#define DEFAULT_CODEC_THREADS 2
#define DEFAULT_CONNECTIONS 4096
#define DEFAULT_IDLE_S 120
#define DEFAULT_RATE_KIB 32

const char *argp_program_version = "limbeckd " LB_VERSION;

enum key {
    KEY_REPOSITORY = 256,
    KEY_LOAD_MODEL,
    KEY_LISTEN,
    KEY_PORT_FILE,
    KEY_TOKEN_FILE,
    KEY_ADMIN_TOKEN_FILE,
    KEY_TLS_CERTIFICATE,
    KEY_TLS_KEY,
    KEY_TLS_CLIENT_CA,
    KEY_INSECURE,
    KEY_BATCH_TOKENS,
    KEY_WAIT_US,
    KEY_QUEUE_TOKENS,
    KEY_QUEUE_REQUESTS,
    KEY_TIMEOUT,
    KEY_DRAIN,
    KEY_MEMORY,
    KEY_STATES,
    KEY_CONNECTIONS,
    KEY_PER_ADDRESS,
    KEY_IDLE,
    KEY_RATE,
    KEY_HTTP_THREADS,
    KEY_CODEC_THREADS,
    KEY_THREADS,
    KEY_LOG_FORMAT,
    KEY_VERBOSE,
    KEY_REHASH,
    KEY_CHECK
};

static const struct argp_option list[] = {
    {NULL, 0, NULL, 0, "Models", 1},
    {"repository", KEY_REPOSITORY, "DIR", 0,
     "Serve each subfolder and each .gguf file of DIR under its own name", 1},
    {"load-model", KEY_LOAD_MODEL, "NAME", 0,
     "Load only this model of the repository at start; may be given several times (default: all)", 1},
    {NULL, 0, NULL, 0, "Listening", 2},
    {"listen", KEY_LISTEN, "ADDR:PORT|unix:PATH", 0,
     "Where to listen; port 0 picks a free one (default: the socket that systemd hands over, "
     "or " DEFAULT_LISTEN ")",
     2},
    {"port-file", KEY_PORT_FILE, "FILE", 0,
     "Write the port that was picked to FILE once the models are ready (default: none)", 2},
    {"tls-certificate", KEY_TLS_CERTIFICATE, "FILE", 0,
     "PEM certificate chain; with --tls-key (default: no TLS)", 2},
    {"tls-key", KEY_TLS_KEY, "FILE", 0, "PEM private key of the certificate", 2},
    {"tls-client-ca", KEY_TLS_CLIENT_CA, "FILE", 0,
     "PEM certificates of those who sign clients' certificates: then clients need one, and are known by its "
     "name "
     "where no token tells another (default: they need none)",
     2},
    {NULL, 0, NULL, 0, "Access", 3},
    {"token-file", KEY_TOKEN_FILE, "FILE", 0,
     "Ask for a bearer token, one of the lines of FILE: TOKEN, or NAME TOKEN [scopes=ask,metrics,admin] "
     "[tokens_per_minute=N] [concurrent=N]. FILE must be kept from others (mode 0600, or root's and 0640; "
     "default: open)",
     3},
    {"admin-token-file", KEY_ADMIN_TOKEN_FILE, "FILE", 0,
     "The same of tokens that may load and unload models, and everything else (default: nobody may)", 3},
    {"insecure", KEY_INSECURE, NULL, 0,
     "Let anybody ask who reaches the address: listen elsewhere than on this machine's own without "
     "--token-file "
     "and --tls-client-ca",
     3},
    {NULL, 0, NULL, 0, "Serving", 4},
    {"max-batch-tokens", KEY_BATCH_TOKENS, "N", 0,
     "Most tokens computed together (default " TEXT(DEFAULT_BATCH_TOKENS) ")", 4},
    {"max-wait-us", KEY_WAIT_US, "N", 0,
     "How long a request waits for others to share its batch, in microseconds (default " TEXT(
         DEFAULT_WAIT_US) ")",
     4},
    {"max-queue-tokens", KEY_QUEUE_TOKENS, "N", 0,
     "Most tokens waiting, of which each of n clients has one part in n; beyond that clients are told to "
     "come "
     "back (default " TEXT(DEFAULT_QUEUE_TOKENS) ")",
     4},
    {"max-queue-requests", KEY_QUEUE_REQUESTS, "N", 0,
     "Most requests waiting, shared likewise (default " TEXT(DEFAULT_QUEUE_REQUESTS) ")", 4},
    {"request-timeout", KEY_TIMEOUT, "SECONDS", 0,
     "Deadline of a request that names none (default " TEXT(DEFAULT_TIMEOUT_S) ")", 4},
    {"memory-limit-mib", KEY_MEMORY, "N", 0,
     "Most MiB of memory beside the models' weights: requests, answers and what is computed, shared fairly "
     "among "
     "clients (default: half of the machine's or the control group's)",
     4},
    {"state-cache-mib", KEY_STATES, "N", 0,
     "Of that, most MiB of sequences' states that are kept, so that what is asked again costs the output "
     "head "
     "only; 0: none (default: a sixteenth of the limit, at most 256)",
     4},
    {"drain-seconds", KEY_DRAIN, "N", 0,
     "After SIGTERM: time to finish what is queued and being sent (default " TEXT(DEFAULT_DRAIN_S) ")", 4},
    {"threads", KEY_THREADS, "N", 0,
     "Threads that compute (default: as many as processors, by the affinity mask and the control group's "
     "quota)",
     4},
    {"codec-threads", KEY_CODEC_THREADS, "N", 0,
     "Threads that decode requests and encode answers (default " TEXT(DEFAULT_CODEC_THREADS) ")", 4},
    {NULL, 0, NULL, 0, "Connections", 5},
    {"http-threads", KEY_HTTP_THREADS, "N", 0,
     "Threads that move bytes (default " TEXT(DEFAULT_HTTP_THREADS) ")", 5},
    {"max-connections", KEY_CONNECTIONS, "N", 0,
     "Most connections (default " TEXT(DEFAULT_CONNECTIONS) ", or what the limit of open files allows)", 5},
    {"max-connections-per-address", KEY_PER_ADDRESS, "N", 0,
     "Most connections of one address (default: three quarters of all)", 5},
    {"idle-seconds", KEY_IDLE, "N", 0,
     "A connection without a request is closed after this (default " TEXT(DEFAULT_IDLE_S) ")", 5},
    {"least-rate-kib", KEY_RATE, "N", 0,
     "KiB a second that a client must send or read, after ten seconds; 0: any (default " TEXT(
         DEFAULT_RATE_KIB) ")",
     5},
    {NULL, 0, NULL, 0, "Other", 6},
    {"log-format", KEY_LOG_FORMAT, "text|json", 0, "Form of the log on standard error (default text)", 6},
    {"verbose", KEY_VERBOSE, NULL, 0, "Log health checks and connection details too", 6},
    {"rehash", KEY_REHASH, NULL, 0,
     "Compute fingerprints and self-tests of large models anew, whatever the cache folder kept of them", 6},
    {"check", KEY_CHECK, NULL, 0, "Open the models, run the self-test, and exit", 6},
    {0}};

static int64_t number(const char *option, const char *text, int64_t min, int64_t max,
                      struct argp_state *state) {
    char *end = NULL;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || value < min || value > max) {
        argp_error(state, "--%s %s: expected a whole number within %lld..%lld", option, text, (long long)min,
                   (long long)max);
    }
    return value;
}

static error_t parse_number(int key, const char *text, struct lb_options *o, struct argp_state *state) {
    switch (key) {
    case KEY_BATCH_TOKENS:
        o->max_batch_tokens = number("max-batch-tokens", text, 1, 1 << 24, state);
        return 0;
    case KEY_WAIT_US:
        o->max_wait_us = number("max-wait-us", text, 0, 10000000, state);
        return 0;
    case KEY_QUEUE_TOKENS:
        o->max_queue_tokens = number("max-queue-tokens", text, 1, INT64_C(1) << 40, state);
        return 0;
    case KEY_QUEUE_REQUESTS:
        o->max_queue_requests = number("max-queue-requests", text, 1, 1 << 24, state);
        return 0;
    case KEY_TIMEOUT:
        o->request_timeout_s = number("request-timeout", text, 1, 86400, state);
        return 0;
    case KEY_DRAIN:
        o->drain_s = number("drain-seconds", text, 0, 86400, state);
        return 0;
    case KEY_MEMORY:
        o->memory_limit_mib = number("memory-limit-mib", text, 16, INT64_C(1) << 24, state);
        return 0;
    case KEY_STATES:
        o->state_cache_mib = number("state-cache-mib", text, 0, INT64_C(1) << 24, state);
        return 0;
    case KEY_CONNECTIONS:
        o->max_connections = number("max-connections", text, 1, 1 << 20, state);
        return 0;
    case KEY_PER_ADDRESS:
        o->max_connections_per_address = number("max-connections-per-address", text, 1, 1 << 20, state);
        return 0;
    case KEY_IDLE:
        o->idle_s = number("idle-seconds", text, 1, 86400, state);
        return 0;
    case KEY_RATE:
        o->least_rate_kib = number("least-rate-kib", text, 0, 1 << 20, state);
        return 0;
    case KEY_HTTP_THREADS:
        o->http_threads = (int)number("http-threads", text, 1, 64, state);
        return 0;
    case KEY_CODEC_THREADS:
        o->codec_threads = (int)number("codec-threads", text, 1, 64, state);
        return 0;
    case KEY_THREADS:
        o->threads = (int)number("threads", text, 1, 1024, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Options that need each other, and something to serve. */
static void check_together(const struct lb_options *o, struct argp_state *state) {
    if (o->n_models == 0 && !o->repository) {
        argp_error(state, "no model: give NAME=PATH or --repository DIR");
    }
    if (o->n_load_models > 0 && !o->repository) {
        argp_error(state, "--load-model names models of --repository, which is missing");
    }
    if (!o->tls_certificate != !o->tls_key) {
        argp_error(state, "--tls-certificate and --tls-key go together");
    }
    if (o->tls_client_ca && !o->tls_certificate) {
        argp_error(state, "--tls-client-ca needs --tls-certificate and --tls-key");
    }
}

static error_t parse(int key, char *text, struct argp_state *state) {
    struct lb_options *o = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        o->models[o->n_models++] = text;
        break;
    case KEY_REPOSITORY:
        o->repository = text;
        break;
    case KEY_LOAD_MODEL:
        o->load_models[o->n_load_models++] = text;
        break;
    case KEY_LISTEN:
        o->listen = text;
        o->listen_given = true;
        break;
    case KEY_PORT_FILE:
        o->port_file = text;
        break;
    case KEY_TOKEN_FILE:
        o->token_file = text;
        break;
    case KEY_ADMIN_TOKEN_FILE:
        o->admin_token_file = text;
        break;
    case KEY_TLS_CERTIFICATE:
        o->tls_certificate = text;
        break;
    case KEY_TLS_KEY:
        o->tls_key = text;
        break;
    case KEY_TLS_CLIENT_CA:
        o->tls_client_ca = text;
        break;
    case KEY_INSECURE:
        o->insecure = true;
        break;
    case KEY_LOG_FORMAT:
        if (strcmp(text, "text") != 0 && strcmp(text, "json") != 0) {
            argp_error(state, "--log-format %s: expected text or json", text);
        }
        o->log_json = strcmp(text, "json") == 0;
        break;
    case KEY_VERBOSE:
        o->verbose = true;
        break;
    case KEY_REHASH:
        lb_memo_distrust();
        break;
    case KEY_CHECK:
        o->check = true;
        break;
    case ARGP_KEY_END:
        check_together(o, state);
        break;
    default:
        return parse_number(key, text, o, state);
    }
    return 0;
}

void lb_options_parse(int argc, char **argv, struct lb_options *out) {
    static const char doc[] =
        "Hosts teacher models over HTTP: logits, top-k, log-sum-exp and activations at every position, by "
        "the Open Inference "
        "Protocol.\v"
        "PATH is a Hugging Face folder (config.json, model.safetensors) or a .gguf file.\n"
        "SIGHUP reads token files, certificate and key anew; what can't be read is told, and the old goes "
        "on.\n"
        "SIGTERM or SIGINT drains: what is queued is answered, new requests get 503. A second one exits at "
        "once.\n"
        "Exit status: 0 done, 1 failed, 2 wrong usage.";
    static const struct argp argp = {
        .options = list, .parser = parse, .args_doc = "[NAME=PATH ...]", .doc = doc};
    *out = (struct lb_options){.listen = DEFAULT_LISTEN,
                               .max_batch_tokens = DEFAULT_BATCH_TOKENS,
                               .max_wait_us = DEFAULT_WAIT_US,
                               .max_queue_tokens = DEFAULT_QUEUE_TOKENS,
                               .max_queue_requests = DEFAULT_QUEUE_REQUESTS,
                               .request_timeout_s = DEFAULT_TIMEOUT_S,
                               .drain_s = DEFAULT_DRAIN_S,
                               .state_cache_mib = -1,
                               .max_connections = DEFAULT_CONNECTIONS,
                               .idle_s = DEFAULT_IDLE_S,
                               .least_rate_kib = DEFAULT_RATE_KIB,
                               .http_threads = DEFAULT_HTTP_THREADS,
                               .codec_threads = DEFAULT_CODEC_THREADS};
    out->models = lb_calloc((size_t)argc + 1, sizeof *out->models);
    out->load_models = lb_calloc((size_t)argc + 1, sizeof *out->load_models);
    argp_err_exit_status = 2;
    if (!out->models || !out->load_models || argp_parse(&argp, argc, argv, 0, NULL, out) != 0) {
        abort(); /* out of memory before anything began */
    }
}

void lb_options_finish(struct lb_options *options) {
    lb_free(options->models);
    lb_free(options->load_models);
    options->models = options->load_models = NULL;
}

enum lb_status lb_options_split(const char *text, char **out_name, const char **out_path,
                                struct lb_detail *detail) {
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || equals[1] == '\0') {
        return lb_fail(detail, LB_E_ARG, "\"%s\": expected NAME=PATH, as in teacher=models/smollm2", text);
    }
    char *name = lb_strdup(text);
    if (!name) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    name[equals - text] = '\0';
    *out_name = name;
    *out_path = equals + 1;
    return LB_OK;
}
