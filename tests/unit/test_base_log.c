#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Standard error goes to a temporary file while a test runs. */
static int saved_stderr = -1;
static int captured = -1;

static int capture(void **state) {
    (void)state;
    char path[] = "/tmp/lb-log-XXXXXX";
    captured = mkstemp(path);
    if (captured < 0 || unlink(path) != 0) {
        return -1;
    }
    saved_stderr = dup(STDERR_FILENO);
    return dup2(captured, STDERR_FILENO) >= 0 ? 0 : -1;
}

static int release(void **state) {
    (void)state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(captured);
    lb_log_setup(LB_LOG_INFO, false);
    return 0;
}

/* Everything logged since the last call; good until the next. */
static char *logged(void) {
    static char text[1 << 20];
    ssize_t n = pread(captured, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    if (ftruncate(captured, 0) != 0 || lseek(captured, 0, SEEK_SET) != 0) {
        text[0] = '\0';
    }
    return text;
}

/* The one JSON object that was logged. */
static json_t *logged_json(void) {
    char *text = logged();
    size_t len = strlen(text);
    assert_true(len > 1 && text[len - 1] == '\n');
    assert_ptr_equal(strchr(text, '\n'), text + len - 1);
    json_t *object = NULL;
    struct lb_detail d = {0};
    if (lb_json_parse(text, len, 0, "log", &object, &d) != LB_OK) {
        fail_msg("%s in %s", d.text, text);
    }
    return object;
}

static void assert_member(const json_t *object, const char *key, const char *expected) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) {
        fail_msg("%s is not a string", key);
    }
    assert_string_equal(json_string_value(value), expected);
}

static void text_lines(void **state) {
    (void)state;
    lb_log_setup(LB_LOG_INFO, false);
    lb_log(LB_LOG_WARN, "slow", "wait_ms=%d path=\"%s\"", 7, "a b");
    char *text = logged();
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; i < sizeof shape - 1; i++) {
        assert_true(shape[i] == 'd' ? text[i] >= '0' && text[i] <= '9' : text[i] == shape[i]);
    }
    assert_string_equal(text + 24, " warn slow wait_ms=7 path=\"a b\"\n");
    lb_log(LB_LOG_INFO, "plain", "%s", "");
    assert_string_equal(logged() + 24, " info plain\n");
}

static void levels_filter(void **state) {
    (void)state;
    lb_log_setup(LB_LOG_WARN, false);
    lb_log(LB_LOG_DEBUG, "no", "a=1");
    lb_log(LB_LOG_INFO, "no", "a=1");
    assert_string_equal(logged(), "");
    lb_log(LB_LOG_ERROR, "yes", "a=1");
    assert_string_equal(logged() + 24, " error yes a=1\n");
    lb_log_setup(LB_LOG_DEBUG, false);
    lb_log(LB_LOG_DEBUG, "now", "a=1");
    assert_string_equal(logged() + 24, " debug now a=1\n");
}

static void one_event_is_one_line(void **state) {
    (void)state;
    lb_log_setup(LB_LOG_INFO, false);
    lb_log(LB_LOG_INFO, "odd", "value=\"%s\"", "a\nb\x1b[31m \xff \xc3\xa9 \xed\xa0\x80");
    assert_string_equal(logged() + 24,
                        " info odd value=\"a\\x0ab\\x1b[31m \\xff \xc3\xa9 \\xed\\xa0\\x80\"\n");
}

static void pairs_become_members(void **state) {
    (void)state;
    lb_log_setup(LB_LOG_INFO, true);
    lb_log(LB_LOG_INFO, "listening",
           "port=8500 loss=-1.25e-05 ready=true none=null address=127.0.0.1 name=\"two words\" quoted=\"12\" "
           "zero=007 "
           "inf=inf nan=-nan big=1e999 hex=12e45678 point=5. empty= last=\"\"");
    json_t *o = logged_json();
    assert_member(o, "level", "info");
    assert_member(o, "event", "listening");
    assert_int_equal(strlen(json_string_value(json_object_get(o, "time"))), 24);
    assert_int_equal(json_integer_value(json_object_get(o, "port")), 8500);
    assert_true(json_real_value(json_object_get(o, "loss")) == -1.25e-05);
    assert_true(json_is_true(json_object_get(o, "ready")));
    assert_true(json_is_null(json_object_get(o, "none")));
    assert_member(o, "address", "127.0.0.1");
    assert_member(o, "name", "two words");
    assert_member(o, "quoted", "12");
    assert_member(o, "zero", "007");
    assert_member(o, "inf", "inf");
    assert_member(o, "nan", "-nan");
    assert_member(o, "big", "1e999");
    assert_member(o, "hex", "12e45678");
    assert_member(o, "point", "5.");
    assert_member(o, "empty", "");
    assert_member(o, "last", "");
    assert_int_equal(json_object_size(o), 3 + 15);
    json_decref(o);
}

static void quotes_within_values(void **state) {
    (void)state;
    lb_log_setup(LB_LOG_INFO, true);
    lb_log(LB_LOG_ERROR, "failed", "error=\"%s\" path=%s", "key \"alpha\" in 'x' is \\ unknown\n", "r.yaml");
    json_t *o = logged_json();
    assert_member(o, "error", "key \"alpha\" in 'x' is \\ unknown\n");
    assert_member(o, "path", "r.yaml");
    json_decref(o);
    lb_log(LB_LOG_ERROR, "failed", "error=\"never closed");
    o = logged_json();
    assert_member(o, "error", "never closed");
    json_decref(o);
    lb_log(LB_LOG_INFO, "words", "some words n=3 and \xff more");
    o = logged_json();
    assert_member(o, "message", "some words and \xef\xbf\xbd more");
    assert_int_equal(json_integer_value(json_object_get(o, "n")), 3);
    json_decref(o);
    lb_log(LB_LOG_INFO, "nothing", "%s", "");
    o = logged_json();
    assert_int_equal(json_object_size(o), 3);
    json_decref(o);
}

static void long_lines_are_cut_and_stay_valid(void **state) {
    (void)state;
    static const char fillers[] = {'x', '\x01', '"', '\\', '\xff', '=', ' '};
    char value[10000];
    for (size_t i = 0; i < sizeof fillers; i++) {
        memset(value, fillers[i], sizeof value - 1);
        value[sizeof value - 1] = '\0';
        lb_log_setup(LB_LOG_INFO, true);
        lb_log(LB_LOG_INFO, "long", "v=\"%s\" after=1", value);
        json_decref(logged_json());
        lb_log(LB_LOG_INFO, "long", "%s", value);
        json_decref(logged_json());
        lb_log_setup(LB_LOG_INFO, false);
        lb_log(LB_LOG_INFO, "long", "v=\"%s\"", value);
        char *text = logged();
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    }
    /* As many pairs as fit, each growing in JSON. */
    for (size_t i = 0; i + 1 < sizeof value; i += 3) {
        memcpy(value + i, "a= ", 3);
    }
    lb_log_setup(LB_LOG_INFO, true);
    lb_log(LB_LOG_INFO, "pairs", "%s", value);
    char *text = logged();
    assert_string_equal(text + strlen(text) - 2, "}\n");
}

static void errno_survives(void **state) {
    (void)state;
    errno = ENOTTY;
    lb_log(LB_LOG_INFO, "x", "a=1");
    assert_int_equal(errno, ENOTTY);
}

static void *log_many(void *data) {
    char filler[400];
    memset(filler, *(char *)data, sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    for (int i = 0; i < 200; i++) {
        lb_log(LB_LOG_INFO, "thread", "filler=%s", filler);
    }
    return NULL;
}

static void threads_do_not_mix_lines(void **state) {
    (void)state;
    lb_log_setup(LB_LOG_INFO, false);
    char names[] = "abcd";
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, &names[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    int lines = 0;
    char *rest = NULL;
    for (char *line = strtok_r(logged(), "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        const char *filler = strstr(line, "filler=");
        assert_non_null(filler);
        filler += 7;
        assert_int_equal(strlen(filler), 399);
        assert_int_equal(strspn(filler, (char[]){filler[0], '\0'}), 399);
        lines++;
    }
    assert_int_equal(lines, 800);
}

/* Nobody reads standard error: whoever logs goes on all the same; what was dropped is told once somebody
 * reads. */
static void blocked_pipe_blocks_nobody(void **state) {
    (void)state;
    int ends[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    assert_int_equal(lb_log_start_thread(), LB_OK);
    for (int i = 0; i < 20000; i++) { /* a megabyte: more than the pipe and what waits */
        lb_log(LB_LOG_INFO, "line", "number=%d", i);
    }
    lb_log_flush(20); /* gives up */
    struct pollfd written = {.fd = ends[0], .events = POLLIN};
    assert_int_equal(poll(&written, 1, 30000), 1); /* the thread has begun */
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    /* The thread holds its last write to the pipe; reading ends it, and the next line tells. */
    static char text[1 << 21];
    size_t len = 0;
    ssize_t n = 0;
    while (len + 1 < sizeof text && (n = read(ends[0], text + len, sizeof text - len - 1)) > 0) {
        len += (size_t)n;
        text[len] = '\0';
    }
    assert_non_null(strstr(text, "line number=0\n"));
    assert_null(strstr(text, "number=19999"));
    assert_true(len < (size_t)1 << 20);
    close(ends[0]);
    lb_log(LB_LOG_INFO, "again", "%s", "");
    lb_log_flush(5000);
    const char *later = logged();
    assert_non_null(strstr(later, "again"));
    assert_non_null(strstr(later, "log_dropped lines="));
}

static void notes_are_warnings(void **state) {
    (void)state;
    struct lb_notes notes = {0};
    lb_note(&notes, "key %s is not known", "a");
    lb_note(&notes, "another");
    lb_log_notes("model_note", "m", &notes);
    lb_log_notes("model_note", NULL, &notes);
    const char *text = logged();
    assert_non_null(strstr(text, "warn model_note model=m note=\"key a is not known\"\n"));
    assert_non_null(strstr(text, "warn model_note note=\"another\"\n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(text_lines, capture, release),
        cmocka_unit_test_setup_teardown(levels_filter, capture, release),
        cmocka_unit_test_setup_teardown(one_event_is_one_line, capture, release),
        cmocka_unit_test_setup_teardown(pairs_become_members, capture, release),
        cmocka_unit_test_setup_teardown(quotes_within_values, capture, release),
        cmocka_unit_test_setup_teardown(long_lines_are_cut_and_stay_valid, capture, release),
        cmocka_unit_test_setup_teardown(notes_are_warnings, capture, release),
        cmocka_unit_test_setup_teardown(errno_survives, capture, release),
        cmocka_unit_test_setup_teardown(threads_do_not_mix_lines, capture, release),
        cmocka_unit_test_setup_teardown(blocked_pipe_blocks_nobody, capture,
                                        release), /* the last: a thread stays */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
