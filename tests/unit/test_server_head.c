/* Heads of requests: what is read, what is refused and how, cut anywhere; the chunked coding, in pieces. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/http/head.h"

#include <stdio.h>
#include <string.h>

static char text[4096];
static struct lb_request_head head;
static const char *why;

static int parse(const char *request) {
    size_t len = strlen(request);
    memcpy(text, request, len + 1);
    why = NULL;
    return lb_head_parse(text, len, &head, &why);
}

#define LINE "POST /v2 HTTP/1.1\r\n"
#define HOST "Host: h\r\n"

static void test_reads(void **state) {
    (void)state;
    assert_int_equal(
        parse("POST /v2/models/a%2Fb%20c/infer?x=%zz HTTP/1.1\r\nHost: h\r\nContent-Length: 12 \r\n"
              "X-A:\t one two\t\r\nX-B:\r\nConnection: keep-alive, Close\r\n\r\n"),
        0);
    assert_string_equal(head.method, "POST");
    assert_string_equal(head.path, "/v2/models/a%2Fb c/infer");
    assert_true(head.has_length && !head.chunked && !head.keep_alive);
    assert_int_equal(head.length, 12);
    assert_string_equal(lb_head_find(&head, "x-a"), "one two");
    assert_string_equal(lb_head_find(&head, "X-B"), "");
    assert_null(lb_head_find(&head, "X-C"));
    assert_int_equal(parse("GET /v2/%6dodels/%2f%2525%41 HTTP/1.1\r\nHost: h\r\n\r\n"), 0);
    assert_string_equal(head.path, "/v2/models/%2F%2525A");
    char segment[] = "%2F%2525%";
    lb_segment_decode(segment);
    assert_string_equal(segment, "/%25%");
    assert_int_equal(parse(LINE HOST "Authorization: Bearer a\r\nauthorization: Bearer a\r\n\r\n"), 0);
    assert_int_equal(parse("\r\nGET http://host:1/p HTTP/1.0\r\n\r\n"), 0);
    assert_string_equal(head.path, "/p");
    assert_false(head.keep_alive);
    assert_int_equal(parse("GET /a?b=http://c/d HTTP/1.1\r\n" HOST "Connection: close\r\n"
                           "Connection: keep-alive\r\n\r\n"),
                     0);
    assert_string_equal(head.path, "/a");
    assert_false(head.keep_alive); /* two headers of a name are one list */
    assert_int_equal(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n"), 0);
    assert_true(head.keep_alive);
    assert_false(head.expects_continue); /* HTTP/1.0 knows no answer of two heads */
    assert_int_equal(parse("GET / HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: Chunked\r\n"
                           "Expect: 100-Continue\r\n\r\n"),
                     0);
    assert_true(head.chunked && head.keep_alive && head.expects_continue);
    assert_int_equal(parse("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"), 0);
}

static void test_refuses(void **state) {
    (void)state;
    const struct {
        int status;
        const char *request;
    } bad[] = {
        {400, LINE HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"},
        {400, LINE HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, LINE HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"},
        {400, LINE HOST HOST "\r\n"},
        {400, LINE "\r\n"},
        {400, LINE HOST "Content-Length : 5\r\n\r\n"},
        {400, LINE HOST "Content-Length: +5\r\n\r\n"},
        {400, LINE HOST "Content-Length: 5, 5\r\n\r\n"},
        {400, LINE HOST "Content-Length:\r\n\r\n"},
        {413, LINE HOST "Content-Length: 99999999999999999999\r\n\r\n"},
        {501, LINE HOST "Transfer-Encoding: gzip, chunked\r\n\r\n"},
        {501, LINE HOST "Transfer-Encoding: identity\r\n\r\n"},
        {400, LINE HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {417, LINE HOST "Expect: the-unexpected\r\n\r\n"},
        {400, LINE HOST "X: a\r\n folded\r\n\r\n"},
        {400, LINE HOST ": a\r\n\r\n"},
        {400, LINE HOST "X\r\n\r\n"},
        {400, LINE HOST "X: a\001b\r\n\r\n"},
        {400, LINE HOST "X: a\rb\r\n\r\n"},
        {400, "POST /v2 HTTP/1.1\n" HOST "\r\n"},
        {400, "POST /v2%00x HTTP/1.1\r\n" HOST "\r\n"},
        {400, "POST /v2%4 HTTP/1.1\r\n" HOST "\r\n"},
        {400, "POST /v2\tx HTTP/1.1\r\n" HOST "\r\n"},
        {400, "POST v2 HTTP/1.1\r\n" HOST "\r\n"},
        {400, "POST /v2 x HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET http://h?x=/v2 HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET http://h HTTP/1.1\r\n" HOST "\r\n"},
        {400, "\r\n\r\n\r\n\r\n\r\n" LINE HOST "\r\n"},
        {400, "P()ST /v2 HTTP/1.1\r\n" HOST "\r\n"},
        {400, LINE HOST "Authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n"},
        {400, LINE HOST "Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n"},
        {400, LINE HOST "Content-Encoding: gzip\r\nContent-Encoding: identity\r\n\r\n"},
        {400, LINE HOST "If-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n\r\n"},
        {400, LINE HOST "Inference-Header-Content-Length: 1\r\nInference-Header-Content-Length: 2\r\n\r\n"},
        {400, "POST /v2\r\n" HOST "\r\n"},
        {400, "\r\n\r\n"},
        {505, "POST /v2 HTTP/2.0\r\n" HOST "\r\n"},
        {400, "POST /v2 HTTP1.1\r\n" HOST "\r\n"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int status = parse(bad[i].request);
        if (status != bad[i].status) {
            fail_msg("%d instead of %d: %s", status, bad[i].status, bad[i].request);
        }
        assert_non_null(why);
    }
    char many[4096] = LINE HOST;
    for (int i = 0; i < LB_MAX_HEADERS; i++) {
        strcat(many, "A: b\r\n");
    }
    strcat(many, "\r\n");
    assert_int_equal(parse(many), 431);
    const char nul[] = "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n";
    memcpy(text, nul, sizeof nul);
    assert_int_equal(lb_head_parse(text, sizeof nul - 1, &head, &why), 400);
}

/* Wherever it is cut, the end is found when it is there, and not before. */
static void test_end(void **state) {
    (void)state;
    const char request[] = "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
    size_t whole = strlen(request) - 4;
    for (size_t cut = 0; cut <= strlen(request); cut++) {
        for (size_t from = 0; from <= cut; from++) {
            size_t end = lb_head_end(request, cut, from < whole ? from : whole - 1);
            assert_int_equal(end, cut >= whole ? whole : 0);
        }
    }
    assert_int_equal(lb_head_end("GET /\n\n", 7, 0), 7); /* so that it can be refused */
    /* Some empty lines in front are ignored; a client that sends nothing else isn't waited for. */
    assert_int_equal(lb_head_end("\r\n\r\n\r\n\r\nGET", 11, 0), 0);
    assert_int_equal(lb_head_end("\r\n\r\n\r\n\r\n\r\n", 10, 8), 10);
    /* Who begins with TLS does not wait for an answer that never comes. */
    assert_int_equal(lb_head_end("\x16\x03\x01\x02", 4, 0), 4);
}

static bool decode(const char *bytes, size_t piece, char *out, bool *done, size_t *used) {
    struct lb_chunks chunks = {0};
    size_t len = strlen(bytes), n_out = 0, n = 0;
    const char *data = NULL, *at = bytes;
    while (at < bytes + len && !chunks.done) {
        const char *end = at + piece < bytes + len ? at + piece : bytes + len;
        do {
            if (!lb_chunks_next(&chunks, &at, end, &data, &n)) {
                return false;
            }
            if (n > 0) {
                memcpy(out + n_out, data, n);
            }
            n_out += n;
        } while (n > 0);
    }
    out[n_out] = '\0';
    *done = chunks.done;
    *used = (size_t)(at - bytes);
    return true;
}

static void test_chunks(void **state) {
    (void)state;
    const char good[] = "4\r\nWiki\r\n0A \t;name=\"v\"\r\npedia in \n\r\n0\r\nX: y\r\n\r\nnext";
    char out[256];
    bool done = false;
    size_t used = 0;
    for (size_t piece = 1; piece < sizeof good; piece++) {
        assert_true(decode(good, piece, out, &done, &used));
        assert_true(done);
        assert_string_equal(out, "Wikipedia in \n");
        assert_string_equal(good + used, "next");
    }
    /* However many they are: only what isn't the body is bounded. */
    struct lb_chunks many = {0}, spaces = {0};
    for (int i = 0; i < 10000; i++) {
        const char one[] = "1\r\na\r\n", *at = one, *data = NULL;
        size_t n = 0;
        assert_true(lb_chunks_next(&many, &at, one + 6, &data, &n) && n == 1 && *data == 'a');
        assert_true(lb_chunks_next(&many, &at, one + 6, &data, &n) && n == 0 && at == one + 6);
    }
    bool taken = true;
    for (int i = 0; i < 10000 && taken; i++) {
        const char *at = i ? " " : "1", *data = NULL;
        size_t n = 0;
        taken = lb_chunks_next(&spaces, &at, at + 1, &data, &n);
    }
    assert_false(taken);
    const char *bad[] = {
        "x\r\n",       "\r\n",         "4\nWiki",      "4\r\nWikix\r\n",      "-1\r\n", "4 5\r\n", "4\t;x\n",
        "4\rWiki\r\n", "4\r\nWiki\n0", "0\r\nX\n\r\n", "1111111111111111\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (decode(bad[i], 100, out, &done, &used)) {
            fail_msg("taken: %s", bad[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
