#include "trainer/run/card.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/readme.h"
#include "trainer/loss/loss.h"
#include "trainer/run/journal.h"

#include <math.h>
#include <string.h>

#define MAX_METRICS_BYTES ((size_t)1 << 30)

/* A name within a table or a heading: on one line, and no end of a cell. */
static void put_name(struct lb_buf *out, const char *name) {
    for (const char *c = name; *c != '\0'; c++) {
        char plain = *c == '|' || *c == '`' || (unsigned char)*c < ' ' ? '_' : *c;
        lb_buf_append(out, &plain, 1);
    }
}

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

static bool reads_text(const struct lb_card *card) {
    return lb_model_config(card->model)->input_size == 0;
}

static bool is_encoder(const struct lb_card *card) {
    return lb_model_sentence(card->model)->kind != LB_POOL_NONE;
}

static bool classifies_texts(const struct lb_card *card) {
    return lb_model_labels(card->model) != NULL;
}

/* What the Hub reads: YAML between two lines. */
static void put_front(const struct lb_card *card, struct lb_buf *out) {
    lb_buf_printf(out, "---\nlibrary_name: %s\n",
                  is_encoder(card)   ? "sentence-transformers"
                  : reads_text(card) ? "transformers"
                                     : "limbeck");
    if (reads_text(card)) {
        lb_buf_printf(out, "pipeline_tag: %s\n",
                      is_encoder(card)         ? "sentence-similarity"
                      : classifies_texts(card) ? "text-classification"
                                               : "text-generation");
    }
    lb_buf_append_str(out, "tags:\n- limbeck\n");
    if (card->teachers != NULL) {
        lb_buf_append_str(out, "- knowledge-distillation\n");
    }
    lb_buf_append_str(out, "---\n");
}

/* A number of a loss, and where it goes; end NAN: it stays. */
static void put_number(struct lb_buf *out, const struct lb_recipe_loss *loss, double start, double end) {
    lb_buf_printf(out, "%g", start);
    if (loss->anneal != LB_ANNEAL_NONE && !isnan(end)) {
        lb_buf_printf(out, " to %g (%s)", end, loss->anneal == LB_ANNEAL_LINEAR ? "linear" : "cosine");
    }
}

static void put_loss(const struct lb_recipe *r, const struct lb_recipe_loss *loss, struct lb_buf *out) {
    lb_buf_printf(out, "| `%s` | ", loss->function);
    put_number(out, loss, loss->args.weight, loss->weight_end);
    lb_buf_append_str(out, " | ");
    if (lb_loss_reads(lb_loss_find(loss->function), "temperature")) {
        double start = loss->args.temperature != 0 ? loss->args.temperature : r->temperature;
        put_number(out, loss, start, loss->temperature_end);
    }
    lb_buf_append_str(out, " |\n");
}

static void put_training(const struct lb_card *card, struct lb_buf *out) {
    const struct lb_recipe *r = card->recipe;
    unsigned n = card->teachers != NULL ? lb_teachers_count(card->teachers) : 0;
    lb_buf_printf(out, "\n## Training\n\n%lld steps, %lld %s, learning rate %g (%s), seed %lld.\n",
                  (long long)card->steps, (long long)card->tokens, reads_text(card) ? "tokens" : "images",
                  r->learning_rate, lb_recipe_schedule_name(r->lr_scheduler_type), (long long)r->seed);
    if (n > 0) {
        lb_buf_append_str(out, "\n| teacher | fingerprint |\n|---|---|\n");
    }
    for (unsigned k = 0; k < n; k++) {
        lb_buf_append_str(out, "| ");
        put_name(out, r->teachers[k].name);
        lb_buf_printf(out, " | `%s` |\n", lb_teachers_info(card->teachers, k)->fingerprint);
    }
    if (n > 1) {
        lb_buf_printf(out, "\nMixture: `%s`.\n", r->mixture);
    }
    lb_buf_append_str(out, "\n| loss | weight | temperature |\n|---|---|---|\n");
    for (unsigned l = 0; l < r->loss_functions_count; l++) {
        put_loss(r, &r->loss_functions[l], out);
    }
}

/* The line of metrics.jsonl that has the evaluation of the exported weights; NULL: none. */
static json_t *own_evaluation(const struct lb_card *card) {
    struct lb_buf text;
    char *path = lb_path_join(card->run_dir, LB_JOURNAL_FILE);
    json_t *last = NULL;
    lb_buf_init(&text, MAX_METRICS_BYTES);
    if (path != NULL && lb_file_read(path, &text, NULL) == LB_OK) {
        const char *at = text.data, *end = text.data + text.len;
        while (at < end) {
            const char *newline = memchr(at, '\n', (size_t)(end - at)),
                       *stop = newline != NULL ? newline : end;
            json_t *line = NULL;
            if (lb_json_parse_loose(at, (size_t)(stop - at), 0, path, &line, NULL) == LB_OK &&
                json_object_get(line, "eval_loss") != NULL &&
                json_integer_value(json_object_get(line, "step")) == card->steps) {
                json_decref(last);
                last = json_incref(line);
            }
            json_decref(line);
            at = stop + 1;
        }
    }
    lb_buf_finish(&text);
    lb_free(path);
    return last;
}

static void put_evaluation(const struct lb_card *card, struct lb_buf *out) {
    json_t *line = own_evaluation(card), *value;
    const char *key;
    if (line == NULL) {
        return;
    }
    lb_buf_printf(out, "\n## Held-out data, after step %lld\n\n| figure | value |\n|---|---|\n",
                  (long long)json_integer_value(json_object_get(line, "step")));
    json_object_foreach(line, key, value) {
        if (strncmp(key, "eval_", 5) == 0 && json_is_number(value)) {
            lb_buf_append_str(out, "| ");
            put_name(out, key + 5);
            lb_buf_printf(out, " | %.4g |\n", json_number_value(value));
        }
    }
    json_decref(line);
}

static void put_use(const struct lb_card *card, struct lb_buf *out) {
    lb_buf_append_str(out, "\n## Use\n\n");
    if (is_encoder(card)) {
        lb_buf_append_str(out, "```python\nfrom sentence_transformers import SentenceTransformer\n"
                               "vectors = SentenceTransformer(\".\").encode([\"a text\"])\n```\n\n");
    } else if (classifies_texts(card)) {
        lb_buf_append_str(out, "```python\nfrom transformers import pipeline\n"
                               "classify = pipeline(\"text-classification\", \".\")\n```\n\n");
    } else if (reads_text(card)) {
        lb_buf_append_str(out, "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
                               "tokenizer = AutoTokenizer.from_pretrained(\".\")\n"
                               "model = AutoModelForCausalLM.from_pretrained(\".\")\n```\n\n");
    }
    lb_buf_append_str(out, "`limbeckd NAME=.` serves it, as a teacher too.\n\n");
}

enum lb_status lb_card_write(const struct lb_card *card, struct lb_buf *out, struct lb_detail *detail) {
    put_front(card, out);
    lb_buf_append_str(out, "\n# ");
    put_name(out, last_part(card->name));
    lb_buf_printf(out, "\n\nA %s of %lld parameters, written by Limbeck %s.\n",
                  lb_model_config(card->model)->model_type, (long long)lb_model_parameters(card->model),
                  LB_VERSION);
    if (card->recipe != NULL) {
        put_training(card, out);
        put_evaluation(card, out);
    }
    put_use(card, out);
    enum lb_status status = lb_readme_seal(out);
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for the model card");
}

enum lb_status lb_card_again(const char *path, struct lb_buf *out, struct lb_detail *detail) {
    char *file = lb_path_join(path, LB_README);
    enum lb_status status = file != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    if (status == LB_OK && lb_file_exists(file)) {
        status = lb_file_read(file, out, detail);
        if (status == LB_OK && !lb_readme_is_sealed(out->data != NULL ? out->data : "", out->len)) {
            lb_buf_reset(out);
        }
    }
    lb_free(file);
    return status;
}
