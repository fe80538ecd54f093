/* The command line of limbeckd. */
#ifndef LB_SERVER_OPTIONS_H
#define LB_SERVER_OPTIONS_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_options {
    const char **models; /* NAME=PATH as given */
    size_t n_models;
    const char *repository;
    const char **load_models; /* of the repository, n_load_models of them; none: all */
    size_t n_load_models;
    const char *listen;
    const char *port_file;
    const char *token_file, *admin_token_file;
    const char *tls_certificate, *tls_key, *tls_client_ca;
    int64_t max_batch_tokens, max_wait_us, max_queue_tokens, max_queue_requests;
    int64_t request_timeout_s, drain_s;
    int64_t memory_limit_mib; /* 0: half of what there is */
    int64_t state_cache_mib;  /* below 0: as the memory limit allows */
    int64_t max_connections,
        max_connections_per_address; /* 0: what the limit of files allows; three quarters */
    int64_t idle_s, least_rate_kib;
    int threads; /* 0: as many as processors */
    int http_threads, codec_threads;
    bool listen_given, insecure, log_json, verbose, check;
};

/* Reads the arguments over the defaults; strings point into argv. Prints usage and ends the process (status 0
 * for --help and --version, 2 for wrong usage) as argp does. Free with lb_options_finish. */
void lb_options_parse(int argc, char **argv, struct lb_options *out);
void lb_options_finish(struct lb_options *options);
/* Splits NAME=PATH; LB_E_ARG when there is no '=' or a side is empty. name: on the heap; path points into
 * text. */
LB_NODISCARD enum lb_status lb_options_split(const char *text, char **out_name, const char **out_path,
                                             struct lb_detail *detail);

#endif
