/* limbeck probe URL... : what teachers serve, how fast they answer, and whether those that serve the same
 * model agree. */
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "trainer/command/commands.h"
#include "trainer/wire/dialect.h"
#include "trainer/wire/metadata.h"
#include "trainer/wire/url.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_URLS 64
#define QUESTIONS 5
#define POSITIONS 32
#define TIMEOUT_NS (60 * LB_SECOND_NS)
/* Log-sum-exps of one model from two machines: other kernels round otherwise, other weights differ by far
 * more. */
#define TOLERANCE 1e-3

struct arguments {
    const char *urls[MAX_URLS], *token_file, *model;
    size_t n_urls;
    bool json;
};

/* One model at one address. */
struct found {
    const char *url;
    char model[LB_MAX_NAME], state[32];
    bool served; /* its metadata came */
    struct lb_teacher_info info;
    char *outputs;                /* names, separated by ", " */
    double latency_ms[QUESTIONS]; /* sorted */
    size_t n_answers;
    struct lb_arena arena;
    struct lb_answer answers[QUESTIONS];
    struct found *next;
};

struct probe {
    const struct arguments *arguments;
    struct lb_client *http;
    char *token;
    volatile sig_atomic_t *stop;
    const char *url; /* whose models are being listed */
    struct found *first, **last;
    bool failed; /* something was said on standard error */
};

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 't':
        a->token_file = text;
        return 0;
    case 'm':
        a->model = text;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->n_urls == MAX_URLS) {
            argp_error(state, "at most %d addresses", MAX_URLS);
        }
        a->urls[a->n_urls++] = text;
        return 0;
    case ARGP_KEY_END:
        if (a->n_urls == 0) {
            argp_error(state, "an address is needed: limbeck probe http://127.0.0.1:8500");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- asking ---- */

static void say(struct probe *probe, const struct lb_detail *detail, enum lb_status status) {
    lb_command_failed(detail, status);
    probe->failed = true;
}

static struct lb_contact contact_of(const struct probe *probe, const char *url) {
    return (struct lb_contact){.http = probe->http,
                               .name = "teacher",
                               .base = url,
                               .token = probe->token,
                               .timeout_ns = TIMEOUT_NS,
                               .stop = probe->stop};
}

static void note_model(void *user, const char *name, const char *version, const char *state) {
    struct probe *probe = user;
    (void)version;
    if (probe->arguments->model && strcmp(probe->arguments->model, name)) {
        return;
    }
    struct found *found = lb_calloc(1, sizeof *found);
    if (!found) {
        return;
    }
    found->url = probe->url;
    snprintf(found->model, sizeof found->model, "%s", name);
    snprintf(found->state, sizeof found->state, "%s", state);
    lb_arena_init(&found->arena, 64u << 20);
    *probe->last = found;
    probe->last = &found->next;
}

/* Names of the outputs of metadata, as one text. */
static char *output_names(const struct lb_buf *text) {
    json_t *root = NULL;
    struct lb_buf names;
    if (lb_json_parse(text->data, text->len, LB_MAX_JSON_DEPTH, "metadata", &root, NULL)) {
        return NULL;
    }
    lb_buf_init(&names, 1u << 20);
    const json_t *outputs = json_object_get(root, "outputs");
    for (size_t i = 0; i < json_array_size(outputs); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(outputs, i), "name"));
        lb_buf_printf(&names, "%s%s", names.len ? ", " : "", name ? name : "?");
    }
    json_decref(root);
    return lb_buf_take(&names, NULL);
}

/* Question q: the same for every address of a model. */
static bool make_sample(const struct lb_teacher_info *info, int q, struct lb_arena *arena,
                        struct lb_sample *out) {
    struct lb_rng rng;
    lb_rng_seed(&rng, 20, (uint64_t)q);
    *out = (struct lb_sample){.n = 1};
    if (info->input_size > 0) {
        float *features = lb_arena_array(arena, (size_t)info->input_size, sizeof *features);
        for (int64_t i = 0; features && i < info->input_size; i++) {
            features[i] = lb_rng_float(&rng);
        }
        out->features = features;
        return features != NULL;
    }
    out->n = info->max_length > 0 && info->max_length < POSITIONS ? info->max_length : POSITIONS;
    int32_t *ids = lb_arena_array(arena, (size_t)out->n, sizeof *ids);
    for (int64_t t = 0; ids && t < out->n; t++) {
        ids[t] = (int32_t)lb_rng_below(&rng, (uint64_t)lb_info_ids(info));
    }
    out->ids = ids;
    return ids != NULL;
}

static enum lb_status ask(struct probe *probe, struct found *found, int q, struct lb_detail *detail) {
    static const struct lb_ask_spec of_logits = {.n_outputs = 2,
                                                 .outputs = {{LB_OUT_LOGSUMEXP, 0, LB_DT_FP32},
                                                             {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32}},
                                                 .top_k = 8,
                                                 .temperature = 1},
                                    of_states = {.n_outputs = 1,
                                                 .outputs = {{LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP32}},
                                                 .top_k = LB_DEFAULT_TOP_K,
                                                 .temperature = 1}; /* where there are no logits */
    const struct lb_ask_spec spec =
        lb_info_gives(&found->info, &of_logits, found->model, NULL) == LB_OK ? of_logits : of_states;
    struct lb_asked asked = {0};
    struct lb_call call;
    struct lb_sample sample;
    const struct lb_sample *samples[] = {&sample};
    struct lb_arena *arenas[] = {&found->arena};
    char where[400];
    struct lb_contact contact = contact_of(probe, found->url);
    char *path = lb_metadata_path(found->model, found->info.fingerprint, "/infer");
    lb_contact_where(&contact, where, sizeof where);
    lb_call_init(&call, found->url, path ? path : "", probe->token);
    enum lb_status status = LB_E_NOMEM;
    if (!path || !make_sample(&found->info, q, &found->arena, &sample)) {
        lb_fail(detail, LB_E_NOMEM, "out of memory for a question");
    } else {
        status =
            lb_dialect_get(LB_PROTOCOL_OIP)
                ->build(&found->info, &spec, samples, 1, TIMEOUT_NS / 1000, &found->arena, &asked, detail);
    }
    if (status == LB_OK) {
        call.body = asked.body.data;
        call.body_bytes = asked.body.len;
        call.json_bytes = asked.json_bytes;
        call.timeout_ns = TIMEOUT_NS;
        call.fresh = true;
        lb_client_perform(probe->http, &call, probe->stop);
        status = lb_call_check(&call, where, detail);
    }
    if (status == LB_OK) {
        const struct lb_ask_reply reply = {call.answer.data, call.answer.len, call.answer_json_bytes,
                                           call.digest};
        status = lb_dialect_get(LB_PROTOCOL_OIP)
                     ->split(&found->info, &spec, &asked, samples, &reply, &found->arena, arenas,
                             &found->answers[found->n_answers], NULL, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "%s", where);
        }
    }
    if (status == LB_OK) {
        found->latency_ms[found->n_answers++] = (double)call.elapsed_ns / (double)LB_MS_NS;
    }
    lb_call_finish(&call);
    lb_asked_finish(&asked);
    lb_free(path);
    return status;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void probe_model(struct probe *probe, struct found *found) {
    struct lb_contact contact = contact_of(probe, found->url);
    struct lb_detail detail = {0};
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_INFO_BYTES);
    enum lb_status status = lb_metadata_info(&contact, found->model, &text, &found->info, &detail);
    if (status == LB_OK) {
        found->served = true;
        found->outputs = output_names(&text);
    }
    lb_buf_finish(&text);
    for (int q = 0; q < QUESTIONS && status == LB_OK; q++) {
        status = ask(probe, found, q, &detail);
    }
    qsort(found->latency_ms, found->n_answers, sizeof *found->latency_ms, by_size);
    if (status != LB_OK) {
        say(probe, &detail, status);
    }
}

/* ---- agreement ---- */

/* The largest difference of any number in the answers that both gave; NAN when a number is none. */
static double difference(const struct found *a, const struct found *b) {
    double largest = 0;
    size_t n = a->n_answers < b->n_answers ? a->n_answers : b->n_answers;
    for (size_t q = 0; q < n; q++) {
        for (size_t j = 0; j < a->answers[q].n_tensors; j++) {
            const struct lb_wire_tensor *x = &a->answers[q].tensors[j], *y = &b->answers[q].tensors[j];
            for (size_t i = 0; i < x->bytes / sizeof(float); i++) {
                double d = fabs((double)((const float *)x->data)[i] - (double)((const float *)y->data)[i]);
                largest = d <= largest ? largest : d; /* keeps NAN */
            }
        }
    }
    return largest;
}

static const struct found *first_of_same(const struct probe *probe, const struct found *found) {
    for (const struct found *other = probe->first; other != found; other = other->next) {
        if (other->n_answers && !strcmp(other->info.fingerprint, found->info.fingerprint)) {
            return other;
        }
    }
    return NULL;
}

static void compare(struct probe *probe, json_t *agreement) {
    for (const struct found *found = probe->first; found; found = found->next) {
        const struct found *other = found->n_answers ? first_of_same(probe, found) : NULL;
        if (!other) {
            continue;
        }
        double d = difference(other, found);
        bool agree = d <= TOLERANCE;
        if (probe->arguments->json) {
            json_array_append_new(agreement,
                                  json_pack("{s:s, s:s, s:s, s:o, s:b, s:b}", "a", other->url, "b",
                                            found->url, "fingerprint", found->info.fingerprint,
                                            "largest_difference", isfinite(d) ? json_real(d) : json_null(),
                                            "identical", d == 0, "agree", agree));
        } else if (d == 0) {
            printf("%s and %s: the same model, identical answers\n", other->url, found->url);
        } else {
            printf("%s and %s: the same model, answers differ by up to %.3g\n", other->url, found->url, d);
        }
        if (!agree) {
            struct lb_detail detail = {0};
            lb_fail(&detail, LB_E_MISMATCH,
                    "%s and %s have one fingerprint, but their answers differ by up to %.3g (at most %g is "
                    "rounding); do not "
                    "use them as replicas",
                    other->url, found->url, d, TOLERANCE);
            say(probe, &detail, LB_E_MISMATCH);
        }
    }
}

/* ---- output ---- */

static double median(const struct found *found) {
    return found->n_answers ? found->latency_ms[found->n_answers / 2] : 0;
}

static void print_found(const struct found *found) {
    const struct lb_teacher_info *info = &found->info;
    printf("%s  model %s%s%s\n", found->url, found->model, *found->state ? ", " : "", found->state);
    if (!found->served) {
        return;
    }
    printf("  fingerprint            %s\n", info->fingerprint);
    if (*info->tokenizer_fingerprint) {
        printf("  tokenizer_fingerprint  %s\n", info->tokenizer_fingerprint);
    }
    if (*info->chat_template_hash) {
        printf("  chat_template_sha256   %s\n", info->chat_template_hash);
    }
    if (*info->compute) {
        printf("  compute                %s\n  kernels                %s\n", info->compute, info->kernels);
    }
    if (!info->input_size) {
        printf("  vocab_size             %" PRId64 "\n", lb_info_ids(info));
    }
    if (info->input_size || info->num_labels) {
        printf("  classes                %" PRId64 "\n", info->vocab_size);
    }
    printf("  hidden_size            %" PRId64 "\n  num_layers             %" PRId64 "\n", info->hidden_size,
           info->n_layers);
    if (info->input_size) {
        printf("  input_size             %" PRId64 "\n", info->input_size);
    } else {
        printf("  num_heads              %" PRId64 "\n  max_length             %" PRId64 "\n", info->n_heads,
               info->max_length);
    }
    printf("  outputs                %s\n", found->outputs ? found->outputs : "");
    if (found->n_answers) {
        printf("  latency                median %.2f ms, fastest %.2f ms for one sequence of up to %d "
               "positions\n",
               median(found), found->latency_ms[0], POSITIONS);
    }
}

static json_t *found_json(const struct found *found) {
    const struct lb_teacher_info *info = &found->info;
    json_t *object = json_pack("{s:s, s:s, s:s, s:b}", "url", found->url, "model", found->model, "state",
                               found->state, "answers", found->n_answers == QUESTIONS);
    if (!object || !found->served) {
        return object;
    }
    json_t *more = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f}", "fingerprint", info->fingerprint,
        "compute", info->compute, "kernels", info->kernels, "tokenizer_fingerprint",
        info->tokenizer_fingerprint, "vocab_size",
        (json_int_t)(info->input_size ? info->vocab_size : lb_info_ids(info)), "hidden_size",
        (json_int_t)info->hidden_size, "num_layers", (json_int_t)info->n_layers, "num_heads",
        (json_int_t)info->n_heads, "max_length", (json_int_t)info->max_length, "input_size",
        (json_int_t)info->input_size, "outputs", found->outputs ? found->outputs : "", "latency_median_ms",
        median(found), "latency_fastest_ms", found->n_answers ? found->latency_ms[0] : 0.0);
    if (info->num_labels) {
        json_object_set_new(more, "num_labels", json_integer((json_int_t)info->num_labels));
    }
    json_object_set_new(more, "chat_template_sha256", json_string(info->chat_template_hash));
    json_object_update(object, more);
    json_decref(more);
    return object;
}

static void print_all(struct probe *probe) {
    json_t *teachers = json_array(), *agreement = json_array();
    for (const struct found *found = probe->first; found; found = found->next) {
        if (probe->arguments->json) {
            json_array_append_new(teachers, found_json(found));
        } else {
            print_found(found);
        }
    }
    compare(probe, agreement);
    if (probe->arguments->json) {
        json_t *all = json_pack("{s:O, s:O}", "teachers", teachers, "agreement", agreement);
        lb_print_json(all, 0);
    }
    json_decref(teachers);
    json_decref(agreement);
}

static void list_models(struct probe *probe, const char *url) {
    struct lb_contact contact = contact_of(probe, url);
    struct lb_detail detail = {0};
    struct found **before = probe->last;
    probe->url = url;
    enum lb_status status = lb_url_check(url, false, &detail);
    status = status != LB_OK ? status : lb_metadata_models(&contact, note_model, probe, &detail);
    if (status == LB_OK && probe->last == before) {
        status = probe->arguments->model ? lb_fail(&detail, LB_E_NOTFOUND, "%s serves no model named %s", url,
                                                   probe->arguments->model)
                                         : lb_fail(&detail, LB_E_NOTFOUND, "%s serves no model", url);
    }
    if (status != LB_OK) {
        say(probe, &detail, status);
    }
}

int lb_cmd_probe(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"token-file", 't', "FILE", 0, "Bearer token, on the first line of FILE (default: none)", 0},
        {"model", 'm', "NAME", 0, "Only the model of this name (default: all that are served)", 0},
        {"json", 'j', NULL, 0, "Print the result as JSON", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "URL...",
        .doc = "Asks teachers what they serve and how long an answer takes. Addresses that serve the same "
               "model (the same "
               "fingerprint) are asked the same questions and their answers compared, as replicas of one "
               "teacher must "
               "agree.\vURL is http://HOST:PORT, https://HOST:PORT or unix:PATH. Ends with status 1 when a "
               "teacher cannot "
               "be asked, or when answers of one model differ by more than rounding."};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    struct lb_detail detail = {0};
    struct probe probe = {.arguments = &a, .stop = stop, .last = &probe.first};
    enum lb_status status = a.token_file ? lb_token_read(a.token_file, &probe.token, &detail) : LB_OK;
    status = status != LB_OK ? status : lb_client_create(&probe.http, &detail);
    if (status != LB_OK) {
        say(&probe, &detail, status);
    } else {
        for (size_t i = 0; i < a.n_urls; i++) {
            list_models(&probe, a.urls[i]);
        }
        for (struct found *found = probe.first; found; found = found->next) {
            probe_model(&probe, found);
        }
        print_all(&probe);
    }
    while (probe.first) {
        struct found *found = probe.first;
        probe.first = found->next;
        lb_arena_finish(&found->arena);
        lb_free(found->outputs);
        lb_free(found);
    }
    lb_client_destroy(probe.http);
    lb_free(probe.token);
    return probe.failed ? LB_EXIT_FAILED : 0;
}
