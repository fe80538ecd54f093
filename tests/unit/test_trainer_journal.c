#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"
#include "trainer/run/journal.h"
#include "trainer/run/progress.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static struct lb_journal *open_at(int64_t step) {
    struct lb_journal *journal = NULL;
    struct lb_detail detail = {0};
    if (lb_journal_open(lb_scratch, step, &journal, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return journal;
}

static void put(struct lb_journal *journal, int64_t step) {
    const struct lb_metric m[] = {{NULL, "loss", 1.5},
                                  {"loss", "kl", 0.1},
                                  {"weight", "a \"b\"\\\n", 1.0 / 3},
                                  {NULL, "grad_norm", NAN}};
    assert_int_equal(lb_journal_write(journal, step, (double)step / 4, m, 4, NULL), LB_OK);
}

static struct lb_buf content(void) {
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    char *path = lb_path_join(lb_scratch, LB_JOURNAL_FILE);
    assert_int_equal(lb_file_read(path, &buf, NULL), LB_OK);
    lb_free(path);
    return buf;
}

/* Steps of the lines in the file; each line is one JSON object. */
static int steps(int64_t *out, int max) {
    struct lb_buf buf = content();
    int n = 0;
    for (char *line = buf.data, *end; line != NULL && *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        json_t *object = NULL;
        assert_int_equal(lb_json_parse(line, (size_t)(end - line), 0, "line", &object, NULL), LB_OK);
        assert_true(n < max);
        assert_int_equal(lb_json_int(object, "step", true, 0, 1000, "line", &out[n++], NULL), LB_OK);
        json_decref(object);
    }
    lb_buf_finish(&buf);
    return n;
}

static void lines_are_json(void **state) {
    (void)state;
    struct lb_journal *journal = open_at(-1);
    put(journal, 10);
    lb_journal_close(journal);
    struct lb_buf buf = content();
    json_t *o = NULL;
    assert_int_equal(lb_json_parse(buf.data, buf.len, 0, "line", &o, NULL), LB_OK);
    assert_int_equal(json_integer_value(json_object_get(o, "step")), 10);
    assert_true(json_real_value(json_object_get(o, "epoch")) == 2.5);
    assert_true(json_real_value(json_object_get(o, "loss")) == 1.5);
    assert_true(json_real_value(json_object_get(o, "loss/kl")) == 0.1);
    assert_true(fabs(json_real_value(json_object_get(o, "weight/a \"b\"\\\n")) - 1.0 / 3) < 1e-6);
    assert_true(json_is_null(json_object_get(o, "grad_norm")));
    assert_true(json_real_value(json_object_get(o, "ts")) > 1.6e9);
    assert_int_equal(json_object_size(o), 7);
    json_decref(o);
    lb_buf_finish(&buf);
}

static void resume_drops_what_comes_again(void **state) {
    (void)state;
    struct lb_journal *journal = open_at(-1);
    int64_t have[16];
    for (int64_t s = 10; s <= 50; s += 10) {
        put(journal, s);
    }
    lb_journal_close(journal);
    /* The last write was cut short by a kill. */
    char *path = lb_path_join(lb_scratch, LB_JOURNAL_FILE);
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    fputs("{\"step\": 60, \"lo", f);
    fclose(f);
    journal = open_at(50);
    put(journal, 60);
    lb_journal_close(journal);
    assert_int_equal(steps(have, 16), 6);
    assert_int_equal(have[5], 60);

    journal = open_at(35); /* an older checkpoint */
    put(journal, 40);
    lb_journal_close(journal);
    assert_int_equal(steps(have, 16), 4);
    assert_int_equal(have[2], 30);
    assert_int_equal(have[3], 40);

    f = fopen(path, "ab");
    assert_non_null(f);
    fputs("no json\n{\"step\": 41}\n", f);
    fclose(f);
    journal = open_at(1000); /* a line that makes no sense costs itself only */
    lb_journal_close(journal);
    assert_int_equal(steps(have, 16), 5);
    assert_int_equal(have[4], 41);

    journal = open_at(41);
    const char text[] = "{\"step\": 42, \"completion\": \"a\\u0000b\"}"; /* as a student may write */
    assert_int_equal(lb_journal_append(journal, text, sizeof text - 1, NULL), LB_OK);
    lb_journal_close(journal);
    journal = open_at(42);
    lb_journal_close(journal);
    struct lb_buf kept = content();
    assert_non_null(strstr(kept.data, text));
    lb_buf_finish(&kept);

    journal = open_at(-1); /* a new run */
    put(journal, 1);
    lb_journal_close(journal);
    assert_int_equal(steps(have, 16), 1);
    lb_journal_close(NULL);
    lb_free(path);
}

/* Texts of long sequences are lines of several MiB. */
static void long_lines(void **state) {
    (void)state;
    enum { LEN = 8 << 20 };
    char *line = malloc(LEN);
    assert_non_null(line);
    memset(line, 'x', LEN);
    memcpy(line, "{\"step\": 1, \"prompt\": \"", 23);
    memcpy(line + LEN - 2, "\"}", 2);
    struct lb_journal *journal = open_at(-1);
    assert_int_equal(lb_journal_append(journal, line, LEN, NULL), LB_OK);
    assert_int_equal(lb_journal_append(journal, "{\"step\": 2}", 11, NULL), LB_OK);
    lb_journal_close(journal);
    journal = open_at(1);
    lb_journal_close(journal);
    char *path = lb_path_join(lb_scratch, LB_JOURNAL_FILE);
    struct lb_map map;
    assert_int_equal(lb_map_open(&map, path, NULL), LB_OK);
    assert_int_equal(map.len, LEN + 1);
    lb_map_close(&map);
    lb_free(path);
    free(line);
}

static void no_folder_no_journal(void **state) {
    (void)state;
    struct lb_journal *journal = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_journal_open("/nonexistent/folder", -1, &journal, &detail), LB_E_IO);
    assert_non_null(strstr(detail.text, "/nonexistent/folder/metrics.jsonl"));
    for (long i = 1; i <= 2; i++) {
        lb_mem_fail_from(i);
        assert_int_equal(lb_journal_open(lb_scratch, -1, &journal, NULL), LB_E_NOMEM);
        lb_mem_fail_from(0);
        assert_null(journal);
    }
}

static void progress_says_what_matters(void **state) {
    (void)state;
    char line[256];
    struct lb_progress_numbers before = {
        .step = 110, .tokens = 1000, .wait_seconds = 1, .questions = 100, .cache_hits = 50};
    struct lb_progress_numbers now = {.step = 120,
                                      .loss = 3.4119,
                                      .tokens = 25690,
                                      .wait_seconds = 1.06,
                                      .questions = 200,
                                      .cache_hits = 148,
                                      .cached = true};
    lb_progress_format(&now, &before, 2.0, 585, 252, 200, line, sizeof line);
    assert_string_equal(line, "step 120/585  loss 3.412  12,345 tokens/s  wait 3%  cache 98%  4:12 left");
    now.images = true;
    lb_progress_format(&now, &before, 2.0, 585, 252, 200, line, sizeof line);
    assert_string_equal(line, "step 120/585  loss 3.412  12,345 images/s  wait 3%  cache 98%  4:12 left");
    now.images = false;
    now.cached = false; /* where there is no cache, none is shown */
    lb_progress_format(&now, &before, 2.0, 585, 252, 200, line, sizeof line);
    assert_string_equal(line, "step 120/585  loss 3.412  12,345 tokens/s  wait 3%  4:12 left");
    now.cached = true;
    now.loss = NAN;
    now.questions = now.cache_hits = 0;
    before.questions = 0;
    now.tokens = 1000 + 2 * 1234567;
    lb_progress_format(&now, &before, 2.0, 585, 7 * 3600 + 62, 200, line, sizeof line);
    assert_string_equal(line, "step 120/585  1,234,567 tokens/s  7:01:02 left");
    now.tokens = before.tokens;
    lb_progress_format(&now, &before, 0, 585, -1, 200, line, sizeof line);
    assert_string_equal(line, "step 120/585");
    lb_progress_format(&now, &before, 0, 585, -1, 200, line, 8); /* too small: cut, not overrun */
    assert_string_equal(line, "step 12");
}

/* However narrow the terminal is, a line fits, and the step is the last to go. */
static void progress_fits(void **state) {
    (void)state;
    char line[256];
    const struct lb_progress_numbers before = {.step = 110}, now = {.step = 120,
                                                                    .loss = 3.4119,
                                                                    .tokens = 24690,
                                                                    .wait_seconds = 0.06,
                                                                    .questions = 200,
                                                                    .cache_hits = 196,
                                                                    .cached = true};
    const char *const full[] = {"step 120/585  loss 3.412  12,345 tokens/s  wait 3%  cache 98%  4:12 left",
                                "step 120/585  loss 3.412  12,345 tokens/s  wait 3%  4:12 left",
                                "step 120/585  loss 3.412  12,345 tokens/s  4:12 left",
                                "step 120/585  loss 3.412  4:12 left",
                                "step 120/585  loss 3.412",
                                "step 120/585"};
    size_t at = 0;
    for (size_t width = 100; width > 0; width--) {
        lb_progress_format(&now, &before, 2.0, 585, 252, width, line, sizeof line);
        assert_true(strlen(line) <= width);
        while (at + 1 < sizeof full / sizeof *full && strlen(full[at]) > width) {
            at++;
        }
        assert_memory_equal(line, full[at], strlen(line));
        assert_true(strlen(line) == strlen(full[at]) || (at == 5 && strlen(line) == width));
    }
}

/* On a terminal each line fits the width of the moment; a dumb one gets plain lines. */
static void progress_on_a_terminal(void **state) {
    (void)state;
    int main_end = posix_openpt(O_RDWR | O_NOCTTY);
    if (main_end < 0 || grantpt(main_end) != 0 || unlockpt(main_end) != 0) {
        skip();
    }
    int terminal = open(ptsname(main_end), O_RDWR | O_NOCTTY);
    FILE *f = fdopen(terminal, "w");
    assert_non_null(f);
    setenv("TERM", "xterm", 1);
    struct lb_progress *p = lb_progress_create(f, 20, 0);
    static const unsigned short widths[] = {80, 30, 10};
    for (int s = 1; s <= 3; s++) {
        const struct lb_progress_numbers now = {.step = s, .loss = 2.5, .tokens = 100 * s};
        char text[512];
        assert_int_equal(
            ioctl(main_end, TIOCSWINSZ, &(struct winsize){.ws_row = 10, .ws_col = widths[s - 1]}), 0);
        lb_progress_update(p, &now, true);
        ssize_t n = read(main_end, text, sizeof text);
        assert_true(n > 4);
        assert_int_equal(text[0], '\r');
        assert_true(n - 4 < widths[s - 1]); /* without \r and \033[K */
    }
    lb_progress_destroy(p);
    setenv("TERM", "dumb", 1);
    p = lb_progress_create(f, 20, 0);
    lb_progress_update(p, &(struct lb_progress_numbers){.step = 1, .loss = 2.5}, true);
    char text[512];
    ssize_t n = read(main_end, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    assert_null(strstr(text, "\033"));
    lb_progress_destroy(p);
    fclose(f);
    close(main_end);
}

/* A file is no terminal: only reports, each a line of its own. */
static void progress_into_a_file(void **state) {
    (void)state;
    FILE *f = tmpfile();
    assert_non_null(f);
    struct lb_progress *p = lb_progress_create(f, 20, 0);
    for (int s = 1; s <= 20; s++) {
        struct lb_progress_numbers now = {.step = s, .loss = 2.5};
        lb_progress_update(p, &now, s % 10 == 0);
        if (s == 10) {
            lb_progress_note(p, "eval");
        }
    }
    lb_progress_destroy(p);
    char text[512];
    rewind(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    fclose(f);
    char *second = strstr(text, "\neval\nstep 20/20  loss 2.500");
    assert_true(strncmp(text, "step 10/20  loss 2.500", 22) == 0);
    assert_non_null(second);
    assert_null(strchr(text, '\r'));
    assert_int_equal(text[n - 1], '\n');
    lb_progress_update(NULL, NULL, true);
    lb_progress_note(NULL, "x");
    lb_progress_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_json),
        cmocka_unit_test(resume_drops_what_comes_again),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(no_folder_no_journal),
        cmocka_unit_test(progress_says_what_matters),
        cmocka_unit_test(progress_fits),
        cmocka_unit_test(progress_on_a_terminal),
        cmocka_unit_test(progress_into_a_file),
    };
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
