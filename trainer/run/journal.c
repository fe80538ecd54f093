#include "trainer/run/journal.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_LINE ((size_t)1 << 30) /* two texts of the longest sequence, all of it escaped */

struct lb_journal {
    int fd;
    char *path;
    struct lb_buf line;
    bool evaluated; /* the step that it was cut behind */
};

/* Whether a line is a JSON object of a step up to this one; *evaluated is set when it is of this one and
 * holds an evaluation. */
static bool is_kept(const char *text, size_t len, int64_t step, bool *evaluated) {
    json_t *object = NULL;
    int64_t line_step = 0;
    /* What a student writes may hold a NUL. */
    bool keep = lb_json_parse_loose(text, len, 0, "", &object, NULL) == LB_OK &&
                lb_json_int(object, "step", true, 0, step, "", &line_step, NULL) == LB_OK;
    *evaluated = *evaluated || (keep && line_step == step && json_object_get(object, "eval_loss") != NULL);
    json_decref(object);
    return keep;
}

/* The file with the lines that are whole and not after step; a damaged one (a full disk, a power cut) costs
 * itself only.
 */
static enum lb_status cut(const char *path, int64_t step, bool *evaluated, struct lb_detail *detail) {
    struct lb_map map = {0};
    struct lb_buf kept;
    enum lb_status status = lb_map_open(&map, path, detail);
    if (status != LB_OK) {
        return status == LB_E_NOTFOUND ? LB_OK : status;
    }
    lb_buf_init(&kept, map.len);
    const char *text = (const char *)map.data;
    for (size_t at = 0; at < map.len;) {
        const char *newline = memchr(text + at, '\n', map.len - at);
        if (newline == NULL) {
            break;
        }
        size_t len = (size_t)(newline - text) - at;
        if (is_kept(text + at, len, step, evaluated)) {
            lb_buf_append(&kept, text + at, len + 1);
        }
        at += len + 1;
    }
    if (lb_buf_status(&kept) != LB_OK) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for %s", path);
    } else if (kept.len < map.len) {
        status = lb_file_replace(path, kept.data != NULL ? kept.data : "", kept.len, detail);
    }
    lb_map_close(&map);
    lb_buf_finish(&kept);
    return status;
}

enum lb_status lb_journal_open(const char *output_dir, int64_t step, struct lb_journal **out,
                               struct lb_detail *detail) {
    return lb_journal_open_as(output_dir, LB_JOURNAL_FILE, step, out, detail);
}

enum lb_status lb_journal_open_as(const char *output_dir, const char *file, int64_t step,
                                  struct lb_journal **out, struct lb_detail *detail) {
    struct lb_journal *journal = lb_calloc(1, sizeof *journal);
    enum lb_status status = LB_OK;
    if (journal != NULL) {
        journal->fd = -1;
        journal->path = lb_path_join(output_dir, file);
        lb_buf_init(&journal->line, MAX_LINE);
    }
    if (journal == NULL || journal->path == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for %s", file);
        goto out;
    }
    status = step >= 0 ? cut(journal->path, step, &journal->evaluated, detail) : LB_OK;
    if (status != LB_OK) {
        goto out;
    }
    journal->fd =
        open(journal->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (step < 0 ? O_TRUNC : 0), 0666);
    if (journal->fd < 0) {
        status = lb_fail_errno(detail, LB_E_IO, errno, "cannot open %s", journal->path);
        goto out;
    }
    *out = journal;
    journal = NULL;
out:
    lb_journal_close(journal);
    return status;
}

bool lb_journal_evaluated(const struct lb_journal *journal) {
    return journal->evaluated;
}

void lb_journal_close(struct lb_journal *journal) {
    if (journal != NULL) {
        if (journal->fd >= 0) {
            close(journal->fd);
        }
        lb_free(journal->path);
        lb_buf_finish(&journal->line);
        lb_free(journal);
    }
}

/* Seven digits are enough to plot and compare; whole numbers are written whole. */
static void put_number(struct lb_buf *line, double v) {
    if (!isfinite(v)) {
        lb_buf_append_str(line, "null");
    } else if (v == floor(v) && fabs(v) < 1e15) {
        lb_buf_printf(line, "%.0f", v);
    } else {
        lb_buf_printf(line, "%.7g", v);
    }
}

static void put_escaped(struct lb_buf *line, const char *text) {
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            lb_buf_printf(line, "\\%c", *c);
        } else if ((unsigned char)*c < 0x20) {
            lb_buf_printf(line, "\\u%04x", (unsigned)*c);
        } else {
            lb_buf_append(line, c, 1);
        }
    }
}

static enum lb_status write_all(const struct lb_journal *journal, struct lb_detail *detail) {
    const char *at = journal->line.data;
    size_t left = journal->line.len;
    while (left > 0) {
        ssize_t n = write(journal->fd, at, left);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return lb_fail_errno(detail, LB_E_IO, errno, "cannot write %s", journal->path);
        }
        at += n;
        left -= (size_t)n;
    }
    return LB_OK;
}

enum lb_status lb_journal_write(struct lb_journal *journal, int64_t step, double epoch,
                                const struct lb_metric *metrics, size_t n, struct lb_detail *detail) {
    struct lb_buf *line = &journal->line;
    lb_buf_reset(line);
    lb_buf_printf(line, "{\"step\": %" PRId64 ", \"epoch\": ", step);
    put_number(line, epoch);
    for (size_t i = 0; i < n; i++) {
        lb_buf_append_str(line, ", \"");
        if (metrics[i].group != NULL) {
            put_escaped(line, metrics[i].group);
            lb_buf_append_str(line, "/");
        }
        put_escaped(line, metrics[i].name);
        lb_buf_append_str(line, "\": ");
        put_number(line, metrics[i].value);
    }
    lb_buf_printf(line, ", \"ts\": %.3f}\n", lb_unix_seconds());
    if (lb_buf_status(line) != LB_OK) {
        return lb_fail(detail, lb_buf_status(line), "%s: a line of metrics is too long", journal->path);
    }
    return write_all(journal, detail);
}

enum lb_status lb_journal_append(struct lb_journal *journal, const char *line, size_t len,
                                 struct lb_detail *detail) {
    lb_buf_reset(&journal->line);
    lb_buf_append(&journal->line, line, len);
    lb_buf_append_str(&journal->line, "\n");
    if (lb_buf_status(&journal->line) != LB_OK) {
        return lb_fail(detail, lb_buf_status(&journal->line), "%s: a line is too long", journal->path);
    }
    return write_all(journal, detail);
}
