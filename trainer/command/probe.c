/* limbeck probe URL... : what teachers serve, how fast they answer, and whether those that serve the same
 * model agree. */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/command/commands.h"
#include "trainer/command/probe.h"
#include "trainer/wire/stated.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_URLS 64
/* Log-sum-exps of one model from two machines: other kernels round otherwise, other weights differ by far
 * more. */
#define TOLERANCE 1e-3

struct arguments {
    const char *urls[MAX_URLS], *token_file, *model;
    const struct lb_dialect *dialect;
    size_t n_urls;
    bool json;
    struct lb_tensor_options tensors;
};

struct probe {
    const struct arguments *arguments;
    struct lb_probing probing;
    char *token;
    struct lb_found *first, **last;
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
    case 'p':
        a->dialect = lb_dialect_get(lb_option_protocol(state, text));
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case 'n':
        lb_option_tensor(state, text, &a->tensors);
        return 0;
    case 'x':
        lb_option_extra_input(state, text, &a->tensors);
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
        lb_option_tensors_end(state, &a->tensors, a->dialect);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void say(struct probe *probe, const struct lb_detail *detail, enum lb_status status) {
    lb_command_failed(detail, status);
    probe->failed = true;
}

/* ---- agreement ---- */

/* The largest difference of any number in the answers that both gave; NAN when a number is none. */
static double difference(const struct lb_found *a, const struct lb_found *b) {
    double largest = 0;
    size_t n = a->n_answers < b->n_answers ? a->n_answers : b->n_answers;
    for (size_t q = 0; q < n; q++) {
        for (size_t j = 0; j < a->answers[q].n_tensors; j++) {
            const struct lb_wire_tensor *x = &a->answers[q].tensors[j], *y = &b->answers[q].tensors[j];
            if (x->datatype != LB_DT_FP32) { /* ids: of equals, either may be listed first */
                continue;
            }
            for (size_t i = 0; i < x->bytes / sizeof(float); i++) {
                double d = fabs((double)((const float *)x->data)[i] - (double)((const float *)y->data)[i]);
                largest = d <= largest ? largest : d; /* keeps NAN */
            }
        }
    }
    return largest;
}

/* Whether both say that they serve the same model. */
static bool is_same(const struct lb_found *a, const struct lb_found *b) {
    return a->info.stated[0] ? strcmp(a->info.stated, b->info.stated) == 0
                             : strcmp(a->info.fingerprint, b->info.fingerprint) == 0;
}

static const struct lb_found *first_of_same(const struct probe *probe, const struct lb_found *found) {
    for (const struct lb_found *other = probe->first; other != found; other = other->next) {
        if (other->n_answers && is_same(other, found)) {
            return other;
        }
    }
    return NULL;
}

static void compare(struct probe *probe, json_t *agreement) {
    for (const struct lb_found *found = probe->first; found; found = found->next) {
        const struct lb_found *other = found->n_answers ? first_of_same(probe, found) : NULL;
        if (!other) {
            continue;
        }
        double d = difference(other, found);
        bool agree = found->info.stated[0] ? lb_stated_alike(&other->info, &found->info) : d <= TOLERANCE;
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
            lb_fail(
                &detail, LB_E_MISMATCH,
                "%s and %s %s, but their answers differ by up to %.3g (at most %g is rounding); do not use "
                "them as replicas",
                other->url, found->url,
                found->info.stated[0] ? "say the same of themselves" : "have one fingerprint", d,
                found->info.stated[0] ? LB_PROBE_SLACK : TOLERANCE);
            say(probe, &detail, LB_E_MISMATCH);
        }
    }
}

/* ---- output ---- */

static double median(const struct lb_found *found) {
    return found->n_answers ? found->latency_ms[found->n_answers / 2] : 0;
}

#define LIST_TEXT 16384

/* "logits, logits.topk_ids, ..." */
static const char *output_names(const struct lb_teacher_info *info, char out[LIST_TEXT]) {
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < info->n_given && at < LIST_TEXT; i++) {
        char name[LB_MAX_NAME];
        lb_output_format((enum lb_output_kind)info->given[i].kind, info->given[i].layer, name);
        at += (size_t)snprintf(out + at, LIST_TEXT - at, "%s%s", i ? ", " : "", name);
    }
    return out;
}

/* Of the ladder: "own token, top-20". */
static const char *rung_names(const struct lb_teacher_info *info, char out[LIST_TEXT]) {
    unsigned rungs = lb_info_rungs(info);
    size_t at = 0;
    out[0] = '\0';
    for (int r = LB_RUNG_OWN; r < LB_N_RUNGS; r++) {
        if (rungs >> r & 1) {
            at += (size_t)snprintf(out + at, LIST_TEXT - at, "%s%s", at ? ", " : "",
                                   lb_rung_name((enum lb_rung)r));
        }
    }
    return out;
}

static json_t *ladder_json(const struct lb_teacher_info *info) {
    json_t *list = json_array();
    for (int r = LB_RUNG_OWN; r < LB_N_RUNGS; r++) {
        if (lb_info_rungs(info) >> r & 1) {
            json_array_append_new(list, json_string(lb_rung_name((enum lb_rung)r)));
        }
    }
    return list;
}

static void print_found(const struct lb_found *found) {
    const struct lb_teacher_info *info = &found->info;
    char names[LIST_TEXT], rungs[LIST_TEXT];
    printf("%s  model %s%s%s\n", found->url, found->model, *found->state ? ", " : "", found->state);
    printf("  protocol               %s\n", found->dialect->name);
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
    if (!info->input_size && found->tells_vocab) {
        printf("  vocab_size             %" PRId64 "\n", lb_info_ids(info));
    }
    if (info->input_size || info->num_labels) {
        printf("  classes                %" PRId64 "\n", info->vocab_size);
    }
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"hidden_size", info->hidden_size},
                 {"num_layers", info->n_layers},
                 {"input_size", info->input_size},
                 {"num_heads", info->n_heads},
                 {"max_length", info->max_length}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i].value > 0) { /* the others are not told, or there are none */
            printf("  %-22s %" PRId64 "\n", sizes[i].name, sizes[i].value);
        }
    }
    printf("  outputs                %s\n", output_names(info, names));
    printf("  gives                  %s\n", rung_names(info, rungs));
    if (info->most_top_k > 0) {
        printf("  most top_k             %" PRId64 "%s\n", info->most_top_k,
               info->tells_most ? "" : " (unless it was told to list more)");
    }
    if (info->plain_only) {
        printf("  temperature            1 only\n");
    }
    if (found->tokens_per_second > 0) {
        printf("  speed                  %.0f %s/s\n", found->tokens_per_second,
               info->input_size ? "images" : "tokens");
    }
    if (found->n_answers) {
        printf("  latency                median %.2f ms, fastest %.2f ms for one sequence of up to %d "
               "positions\n",
               median(found), found->latency_ms[0], LB_PROBE_LENGTH);
    }
}

static json_t *found_json(const struct lb_found *found) {
    const struct lb_teacher_info *info = &found->info;
    json_t *object = json_pack("{s:s, s:s, s:s, s:b}", "url", found->url, "model", found->model, "state",
                               found->state, "answers", found->n_answers == LB_PROBE_QUESTIONS);
    char names[LIST_TEXT];
    json_object_set_new(object, "protocol", json_string(found->dialect->name));
    if (!object || !found->served) {
        return object;
    }
    json_t *more = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f}", "fingerprint", info->fingerprint,
        "compute", info->compute, "kernels", info->kernels, "tokenizer_fingerprint",
        info->tokenizer_fingerprint, "vocab_size",
        (json_int_t)(!found->tells_vocab ? 0
                     : info->input_size  ? info->vocab_size
                                         : lb_info_ids(info)),
        "hidden_size", (json_int_t)info->hidden_size, "num_layers", (json_int_t)info->n_layers, "num_heads",
        (json_int_t)info->n_heads, "max_length", (json_int_t)info->max_length, "input_size",
        (json_int_t)info->input_size, "outputs", output_names(info, names), "latency_median_ms",
        median(found), "latency_fastest_ms", found->n_answers ? found->latency_ms[0] : 0.0);
    if (info->num_labels) {
        json_object_set_new(more, "num_labels", json_integer((json_int_t)info->num_labels));
    }
    json_object_set_new(more, "ladder", ladder_json(info));
    json_object_set_new(more, "most_top_k", json_integer((json_int_t)info->most_top_k));
    json_object_set_new(more, "any_temperature", json_boolean(!info->plain_only));
    json_object_set_new(more, "tokens_per_second", json_real(found->tokens_per_second));
    json_object_set_new(more, "chat_template_sha256", json_string(info->chat_template_hash));
    json_object_update(object, more);
    json_decref(more);
    return object;
}

static void print_all(struct probe *probe) {
    json_t *teachers = json_array(), *agreement = json_array();
    for (const struct lb_found *found = probe->first; found; found = found->next) {
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
    struct lb_detail detail = {0};
    enum lb_status status = lb_probe_list(&probe->probing, url, &probe->last, &detail);
    if (status != LB_OK) {
        say(probe, &detail, status);
    }
}

int lb_cmd_probe(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"token-file", 't', "FILE", 0, "Bearer token, on the first line of FILE (default: none)", 0},
        {"model", 'm', "NAME", 0, "Only the model of this name (default: all that are served)", 0},
        {"protocol", 'p', "NAME", 0, "How the servers are asked (default: found out)", 0},
        {"name", 'n', "KEY=TENSOR", 0, LB_NAME_HELP, 0},
        {"extra-input", 'x', "TENSOR=VALUE", 0, LB_EXTRA_INPUT_HELP, 0},
        {"json", 'j', NULL, 0, "Print the result as JSON", 0},
        {0}};
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .args_doc = "URL...",
                                     .doc = "Asks teachers what they are, what they serve and can give (of "
                                            "own token, top-20, top-k, chosen ids, "
                                            "full logits, final state, inner layers), and how long an answer "
                                            "takes. Addresses that serve the same "
                                            "model (the same fingerprint, or what they say of themselves) "
                                            "are asked the same questions and their "
                                            "answers compared, as replicas of one teacher must agree.\vURL "
                                            "is http://HOST:PORT, https://HOST:PORT "
                                            "or unix:PATH. Ends with status 1 when a teacher cannot be "
                                            "asked, or when answers of one model differ "
                                            "by more than rounding."};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    struct lb_detail detail = {0};
    struct probe probe = {.arguments = &a, .last = &probe.first};
    enum lb_status status = a.token_file ? lb_token_read(a.token_file, &probe.token, &detail) : LB_OK;
    probe.probing =
        (struct lb_probing){.token = probe.token, .model = a.model, .dialect = a.dialect, .stop = stop};
    probe.probing.naming = lb_tensors_naming(&a.tensors);
    if (probe.probing.naming) { /* --protocol is oip or was not given */
        probe.probing.dialect = lb_dialect_of(LB_PROTOCOL_OIP, probe.probing.naming);
    }
    status = status != LB_OK ? status : lb_client_create(&probe.probing.http, &detail);
    if (status != LB_OK) {
        say(&probe, &detail, status);
    } else {
        for (size_t i = 0; i < a.n_urls; i++) {
            list_models(&probe, a.urls[i]);
        }
        for (struct lb_found *found = probe.first; found; found = found->next) {
            detail = (struct lb_detail){0};
            status = lb_probe_ask(&probe.probing, found, &detail);
            if (status != LB_OK) {
                say(&probe, &detail, status);
            }
        }
        print_all(&probe);
    }
    while (probe.first) {
        probe.first = lb_found_destroy(probe.first);
    }
    lb_client_destroy(probe.probing.http);
    lb_free(probe.token);
    return probe.failed ? LB_EXIT_FAILED : 0;
}
