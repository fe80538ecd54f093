#include "common/base/log.h"

#include "common/base/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A line is put together on the stack and written by one write(), so that lines of several threads do not
 * mix. Escaping makes at most six bytes of one, so a line always has room for the whole rest. */
enum { REST_MAX = 4096, LINE_MAX_BYTES = 32768 };

static enum lb_log_level least_level = LB_LOG_INFO;
static bool json_form;

void lb_log_setup(enum lb_log_level least, bool json) {
    least_level = least;
    json_form = json;
}

/* A fixed line that stops taking bytes when full, leaving room for the end of the line. */
struct line {
    char bytes[LINE_MAX_BYTES];
    size_t len;
};

static bool fits(const struct line *line, size_t n) {
    return line->len + n <= LINE_MAX_BYTES - 8;
}

static void put(struct line *line, const char *bytes, size_t n) {
    if (fits(line, n)) {
        memcpy(line->bytes + line->len, bytes, n);
        line->len += n;
    }
}

static void put_str(struct line *line, const char *text) {
    put(line, text, strlen(text));
}

/* Text form: control characters and broken UTF-8 as \xNN, so that one event stays one line. */
static void put_plain(struct line *line, const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        size_t len = lb_utf8_char(s + i, n - i);
        if (len == 0 || s[i] < 0x20 || s[i] == 0x7f) {
            char escape[5];
            snprintf(escape, sizeof escape, "\\x%02x", s[i]);
            put(line, escape, 4);
            i++;
        } else {
            put(line, text + i, len);
            i += len;
        }
    }
}

static void put_json_string(struct line *line, const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    put(line, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t len = lb_utf8_char(s + i, n - i);
        if (len == 0) {
            put_str(line, "\xef\xbf\xbd"); /* U+FFFD */
            i++;
        } else if (s[i] < 0x20 || s[i] == 0x7f || s[i] == '"' || s[i] == '\\') {
            char escape[7];
            snprintf(escape, sizeof escape, "\\u%04x", s[i]);
            put(line, escape, 6);
            i++;
        } else {
            put(line, text + i, len);
            i += len;
        }
    }
    put(line, "\"", 1);
}

/* Does the value read as a JSON number (or true, false, null) all the way? */
static bool is_json_literal(const char *text, size_t n) {
    if ((n == 4 && (memcmp(text, "true", 4) == 0 || memcmp(text, "null", 4) == 0)) ||
        (n == 5 && memcmp(text, "false", 5) == 0)) {
        return true;
    }
    size_t i = n > 0 && text[0] == '-' ? 1 : 0;
    if (n > 40 || i == n || !isdigit((unsigned char)text[i]) ||
        (text[i] == '0' && i + 1 < n && isdigit((unsigned char)text[i + 1]))) {
        return false;
    }
    for (; i < n && isdigit((unsigned char)text[i]); i++) {
    }
    if (i < n && text[i] == '.') {
        size_t point = i++;
        for (; i < n && isdigit((unsigned char)text[i]); i++) {
        }
        if (i == point + 1) {
            return false;
        }
    }
    if (i < n && (text[i] == 'e' || text[i] == 'E')) {
        i++;
        i += i < n && (text[i] == '+' || text[i] == '-') ? 1 : 0;
        size_t first = i;
        for (; i < n && isdigit((unsigned char)text[i]); i++) {
        }
        if (i == first) {
            return false;
        }
    }
    char copy[41];
    memcpy(copy, text, n);
    copy[n] = '\0';
    return i == n && isfinite(strtod(copy, NULL));
}

/* Length of a key at s that is followed by '=', or 0. */
static size_t key_length(const char *s) {
    size_t n = 0;
    while (isalnum((unsigned char)s[n]) || s[n] == '_' || s[n] == '.' || s[n] == '-') {
        n++;
    }
    return s[n] == '=' ? n : 0;
}

/* Where the quoted value that starts at s (behind its first quote) ends. A quote inside the value is told
 * from the last one by what follows: the end, or another key=. */
static const char *closing_quote(const char *s) {
    for (; *s != '\0'; s++) {
        if (*s == '"') {
            const char *next = s + 1;
            next += strspn(next, " ");
            if (*next == '\0' || (next > s + 1 && key_length(next) > 0)) {
                break;
            }
        }
    }
    return s;
}

/* The pairs as members; words that belong to no pair become one member "message". */
static void put_members(struct line *line, const char *rest) {
    char message[REST_MAX];
    size_t message_len = 0;
    const char *s = rest;
    while (*(s += strspn(s, " ")) != '\0') {
        size_t key = key_length(s);
        if (key == 0) {
            size_t n = strcspn(s, " ");
            if (message_len + n + 1 < sizeof message) {
                message_len += (size_t)snprintf(message + message_len, sizeof message - message_len, "%s%.*s",
                                                message_len > 0 ? " " : "", (int)n, s);
            }
            s += n;
            continue;
        }
        put(line, ",", 1);
        put_json_string(line, s, key);
        put(line, ":", 1);
        s += key + 1;
        if (*s == '"') {
            const char *end = closing_quote(s + 1);
            put_json_string(line, s + 1, (size_t)(end - s - 1));
            s = *end == '"' ? end + 1 : end;
        } else {
            size_t n = strcspn(s, " ");
            if (is_json_literal(s, n)) {
                put(line, s, n);
            } else {
                put_json_string(line, s, n);
            }
            s += n;
        }
    }
    if (message_len > 0) {
        put_str(line, ",\"message\":");
        put_json_string(line, message, message_len);
    }
}

static void write_all(const char *bytes, size_t n) {
    while (n > 0) {
        ssize_t done = write(STDERR_FILENO, bytes, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return; /* nowhere to complain */
        }
        bytes += done;
        n -= (size_t)done;
    }
}

/* ---- a thread that alone waits for standard error ---- */

enum { WAITING_MAX = 256 << 10 };

static struct {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t more, written;
    bool started, writing;
    size_t len;
    unsigned long dropped;
    char waiting[WAITING_MAX], being_written[WAITING_MAX];
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static void *write_lines(void *unused) {
    (void)unused;
    pthread_mutex_lock(&queue.lock);
    for (;;) {
        if (queue.len == 0) {
            pthread_cond_wait(&queue.more, &queue.lock);
            continue;
        }
        size_t len = queue.len;
        memcpy(queue.being_written, queue.waiting, len);
        queue.len = 0;
        queue.writing = true;
        pthread_mutex_unlock(&queue.lock);
        write_all(queue.being_written, len);
        pthread_mutex_lock(&queue.lock);
        queue.writing = false;
        pthread_cond_broadcast(&queue.written);
    }
    return NULL;
}

void lb_log_notes(const char *event, const char *model, const struct lb_notes *notes) {
    const char *note;
    for (size_t i = 0; (note = lb_note_get(notes, i)) != NULL; i++) {
        lb_log(LB_LOG_WARN, event, "%s%s%snote=\"%s\"", model != NULL ? "model=" : "",
               model != NULL ? model : "", model != NULL ? " " : "", note);
    }
}

enum lb_status lb_log_start_thread(void) {
    pthread_t thread;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue.written, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&thread, NULL, write_lines, NULL) != 0) {
        return LB_E_NOMEM;
    }
    pthread_detach(thread); /* it ends with the process, in the middle of a write if need be */
    pthread_mutex_lock(&queue.lock);
    queue.started = true;
    pthread_mutex_unlock(&queue.lock);
    return LB_OK;
}

void lb_log_flush(unsigned ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&queue.lock);
    int r = 0;
    while (queue.started && (queue.len > 0 || queue.writing) && r == 0) {
        r = pthread_cond_timedwait(&queue.written, &queue.lock, &until);
    }
    pthread_mutex_unlock(&queue.lock);
}

/* False: there is no thread; the line is the caller's to write. */
static bool enqueue(const struct line *line, bool *out_dropped_before, unsigned long *out_dropped) {
    pthread_mutex_lock(&queue.lock);
    bool started = queue.started;
    *out_dropped_before = false;
    if (started && queue.len + line->len <= WAITING_MAX) {
        memcpy(queue.waiting + queue.len, line->bytes, line->len);
        queue.len += line->len;
        pthread_cond_signal(&queue.more);
        *out_dropped_before = queue.dropped > 0;
        *out_dropped = queue.dropped;
        queue.dropped = 0;
    } else if (started) {
        queue.dropped++;
    }
    pthread_mutex_unlock(&queue.lock);
    return started;
}

void lb_log(enum lb_log_level level, const char *event, const char *format, ...) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level < least_level) {
        return;
    }
    int saved_errno = errno;
    char rest[REST_MAX];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(rest, sizeof rest, format, args);
    va_end(args);
    if (n >= REST_MAX) {
        memcpy(rest + REST_MAX - 4, "...", 4);
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char stamp[40];
    size_t stamp_len = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(stamp + stamp_len, sizeof stamp - stamp_len, ".%03ldZ", now.tv_nsec / 1000000);

    struct line line;
    line.len = 0;
    if (json_form) {
        put_str(&line, "{\"time\":\"");
        put_str(&line, stamp);
        put_str(&line, "\",\"level\":\"");
        put_str(&line, names[level]);
        put_str(&line, "\",\"event\":");
        put_json_string(&line, event, strlen(event));
        put_members(&line, n < 0 ? "" : rest);
        memcpy(line.bytes + line.len, "}\n", 2);
        line.len += 2;
    } else {
        put_str(&line, stamp);
        put(&line, " ", 1);
        put_str(&line, names[level]);
        put(&line, " ", 1);
        put_plain(&line, event);
        if (n > 0) {
            put(&line, " ", 1);
            put_plain(&line, rest);
        }
        line.bytes[line.len++] = '\n';
    }
    bool dropped_before = false;
    unsigned long dropped = 0;
    if (!enqueue(&line, &dropped_before, &dropped)) {
        write_all(line.bytes, line.len);
    }
    if (dropped_before) {
        lb_log(LB_LOG_WARN, "log_dropped", "lines=%lu", dropped);
    }
    errno = saved_errno;
}
