/* completions.jsonl: the texts that the student wrote, one JSON object a line. */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/run/run.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((size_t)64 << 20)

static enum lb_status decode(const struct lb_run *run, const int32_t *ids, int64_t n, bool skip_special,
                             json_t **out, struct lb_detail *detail) {
    struct lb_buf text;
    lb_buf_init(&text, MAX_TEXT);
    enum lb_status status = lb_tokenizer_decode(run->tokenizer, ids, (size_t)n, skip_special, &text, detail);
    if (status == LB_OK) {
        *out = json_stringn(text.data != NULL ? text.data : "", text.len);
        status = *out != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for a text");
    }
    lb_buf_finish(&text);
    return status;
}

static enum lb_status keep(struct lb_run *run, int64_t number, const struct lb_sample *s,
                           struct lb_detail *detail) {
    int64_t n = s->n + 1 - s->prompt;
    json_t *prompt = NULL, *completion = NULL;
    enum lb_status status = decode(run, s->ids, s->prompt, false, &prompt, detail);
    status = status == LB_OK ? decode(run, s->ids + s->prompt, n, true, &completion, detail) : status;
    char *line = NULL;
    if (status == LB_OK) {
        const char *reason = lb_scribe_ends(run->scribe, s->ids[s->n]) ? "stop" : "length";
        json_t *object =
            json_pack("{s:I, s:I, s:I, s:O, s:O, s:I, s:I, s:s}", "step", (json_int_t)run->at.step + 1,
                      "sample", (json_int_t)number, "seed", (json_int_t)lb_scribe_seed(run->recipe, number),
                      "prompt", prompt, "completion", completion, "prompt_tokens", (json_int_t)s->prompt,
                      "completion_tokens", (json_int_t)n, "finish_reason", reason);
        line = object != NULL ? json_dumps(object, 0) : NULL;
        json_decref(object);
        status = line != NULL ? lb_journal_append(run->completions, line, strlen(line), detail)
                              : lb_fail(detail, LB_E_NOMEM, "out of memory for a text");
    }
    json_decref(prompt);
    json_decref(completion);
    free(line);
    return status;
}

enum lb_status lb_run_keep_completions(struct lb_run *run, int64_t m, const struct lb_sample *samples,
                                       struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    int64_t batch = run->recipe->per_device_train_batch_size;
    for (int64_t i = 0; status == LB_OK && run->completions != NULL && i < batch; i++) {
        if (samples[i].source == LB_SOURCE_STUDENT) {
            status = keep(run, m * batch + i, &samples[i], detail);
        }
    }
    return status;
}
