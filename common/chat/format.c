/* Values as texts: the builder of texts with marks, str(), repr(), json.dumps. */
#include "common/chat/value.h"

#include "common/base/utf8.h"
#include "common/base/mem.h"
#include "common/text/letters.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lb_jb_init(struct lb_jbuilder *b, struct lb_jinja *j) {
    *b = (struct lb_jbuilder){.j = j};
}

void lb_jb_put(struct lb_jbuilder *b, const char *s, size_t len, const uint8_t *mark) {
    if (!len || !lb_jinja_step(b->j, len / 64)) {
        return;
    }
    if (len > b->cap - b->len) {
        size_t cap = b->cap ? b->cap : 64, need;
        if (!lb_add_size(b->len, len, &need)) {
            return;
        }
        while (cap < need) {
            cap *= 2;
        }
        char *s_more = lb_jinja_alloc(b->j, cap, 1);
        uint8_t *mark_more = lb_jinja_alloc(b->j, cap, 1);
        if (!s_more || !mark_more) {
            return;
        }
        if (b->len) {
            memcpy(s_more, b->s, b->len);
            memcpy(mark_more, b->mark, b->len);
        }
        b->s = s_more;
        b->mark = mark_more;
        b->cap = cap;
    }
    memcpy(b->s + b->len, s, len);
    if (mark) {
        memcpy(b->mark + b->len, mark, len);
        b->marked = true;
    } else {
        memset(b->mark + b->len, 0, len);
    }
    b->len += len;
}

void lb_jb_str(struct lb_jbuilder *b, const char *s) {
    lb_jb_put(b, s, strlen(s), NULL);
}

void lb_jb_text(struct lb_jbuilder *b, const struct lb_jv *text) {
    lb_jb_put(b, text->s, text->len, text->mark);
}

/* Bytes that all carry one mark. */
static void put_marked(struct lb_jbuilder *b, const char *s, size_t len, uint8_t mark) {
    uint8_t marks[16];
    memset(marks, mark, sizeof marks);
    lb_jb_put(b, s, len, mark ? marks : NULL);
}

void lb_jb_char(struct lb_jbuilder *b, uint32_t code_point, uint8_t mark) {
    char bytes[4];
    put_marked(b, bytes, lb_utf8_put(code_point, bytes), mark);
}

struct lb_jv lb_jb_done(struct lb_jbuilder *b) {
    struct lb_jv text = lb_jv_text(b->s ? b->s : "", b->len);
    text.mark = b->marked ? b->mark : NULL;
    return b->j->status == LB_OK ? text : lb_jv_undefined(NULL);
}

/* ---- numbers ---- */

/* repr(float): the shortest digits that read back the same, exponent form from 1e16 and below 1e-4. */
static void put_float(struct lb_jbuilder *b, double f, bool json) {
    char digits[32], text[48];
    if (isnan(f) || isinf(f)) {
        lb_jb_str(b, isnan(f) ? (json ? "NaN" : "nan")
                     : f > 0  ? (json ? "Infinity" : "inf")
                     : json   ? "-Infinity"
                              : "-inf");
        return;
    }
    int precision = 0;
    do {
        snprintf(digits, sizeof digits, "%.*e", precision++, f);
    } while (precision < 17 && strtod(digits, NULL) != f);
    precision--;
    int exponent = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        snprintf(text, sizeof text, "%.*e", precision, f);
    } else if (precision - exponent > 0) {
        snprintf(text, sizeof text, "%.*f", precision - exponent, f);
    } else {
        snprintf(text, sizeof text, "%.1f", f);
    }
    lb_jb_str(b, text);
}

static void put_int(struct lb_jbuilder *b, int64_t i) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)i);
    lb_jb_str(b, text);
}

/* ---- repr ---- */

/* repr(str): with ' unless there is ' and no " in it. */
static void repr_text(struct lb_jbuilder *b, const struct lb_jv *text) {
    bool single = memchr(text->s, '\'', text->len), twice = memchr(text->s, '"', text->len);
    char quote = single && !twice ? '"' : '\'';
    put_marked(b, &quote, 1, 0);
    for (size_t at = 0; at < text->len && b->j->status == LB_OK;) {
        size_t start = at;
        uint32_t c = lb_utf8_next(text->s, &at);
        uint8_t mark = text->mark ? text->mark[start] : 0;
        char escaped[16] = "";
        if (c == (uint32_t)quote || c == '\\') {
            snprintf(escaped, sizeof escaped, "\\%c", (int)c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            snprintf(escaped, sizeof escaped, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        } else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !lb_is_printable(c))) {
            snprintf(escaped, sizeof escaped, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        }
        if (escaped[0]) {
            put_marked(b, escaped, strlen(escaped), mark);
        } else {
            lb_jb_put(b, text->s + start, at - start, text->mark ? text->mark + start : NULL);
        }
    }
    put_marked(b, &quote, 1, 0);
}

static void repr_list(struct lb_jbuilder *b, const struct lb_jlist *list) {
    bool tuple = list->sort == LB_SORT_TUPLE;
    lb_jb_str(b, tuple ? "(" : "[");
    for (size_t i = 0; i < list->n && b->j->status == LB_OK; i++) {
        lb_jb_str(b, i ? ", " : "");
        lb_jb_repr(b, &list->item[i]);
    }
    lb_jb_str(b, tuple ? (list->n == 1 ? ",)" : ")") : "]");
}

static void repr_dict(struct lb_jbuilder *b, const struct lb_jdict *dict) {
    lb_jb_str(b, "{");
    for (size_t i = 0; i < dict->n && b->j->status == LB_OK; i++) {
        lb_jb_str(b, i ? ", " : "");
        lb_jb_repr(b, &dict->key[i]);
        lb_jb_str(b, ": ");
        lb_jb_repr(b, &dict->value[i]);
    }
    lb_jb_str(b, "}");
}

void lb_jb_repr(struct lb_jbuilder *b, const struct lb_jv *value) {
    if (!lb_jinja_down(b->j)) {
        return;
    }
    if (value->kind == LB_JV_TEXT) {
        repr_text(b, value);
    } else if (value->kind == LB_JV_LIST && value->list->sort <= LB_SORT_TUPLE) {
        repr_list(b, value->list);
    } else if (value->kind == LB_JV_DICT) {
        repr_dict(b, value->dict);
    } else if (value->kind == LB_JV_UNDEFINED) {
        lb_jb_str(b, "Undefined");
    } else {
        lb_jb_value(b, value);
    }
    lb_jinja_up(b->j);
}

void lb_jb_value(struct lb_jbuilder *b, const struct lb_jv *value) {
    switch (value->kind) {
    case LB_JV_UNDEFINED:
        break;
    case LB_JV_NONE:
        lb_jb_str(b, "None");
        break;
    case LB_JV_BOOL:
        lb_jb_str(b, value->b ? "True" : "False");
        break;
    case LB_JV_INT:
        put_int(b, value->i);
        break;
    case LB_JV_FLOAT:
        put_float(b, value->f, false);
        break;
    case LB_JV_TEXT:
        lb_jb_text(b, value);
        break;
    default:
        if (value->kind == LB_JV_DICT || (value->kind == LB_JV_LIST && value->list->sort <= LB_SORT_TUPLE)) {
            lb_jb_repr(b, value);
        } else {
            lb_jinja_fail(b->j, LB_E_UNSUPPORTED, "a %s as a text is not supported", lb_jv_type(value));
        }
    }
}

struct lb_jv lb_jv_str(struct lb_jinja *j, struct lb_jv value) {
    if (value.kind == LB_JV_TEXT) {
        return value;
    }
    struct lb_jbuilder b;
    lb_jb_init(&b, j);
    lb_jb_value(&b, &value);
    return lb_jb_done(&b);
}

/* ---- JSON ---- */

static void json_char(struct lb_jbuilder *b, uint32_t c, uint8_t mark) {
    char text[16];
    if (c >= 0x10000) {
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
    } else {
        snprintf(text, sizeof text, "\\u%04x", c);
    }
    put_marked(b, text, strlen(text), mark);
}

static void json_text(struct lb_jbuilder *b, const struct lb_jv *text, bool ascii) {
    static const char short_form[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    lb_jb_str(b, "\"");
    for (size_t at = 0; at < text->len && b->j->status == LB_OK;) {
        size_t start = at;
        uint32_t c = lb_utf8_next(text->s, &at);
        uint8_t mark = text->mark ? text->mark[start] : 0;
        const char *known = c && c < 0x80 ? strchr(short_form, (int)c) : NULL;
        if (known) {
            char two[2] = {'\\', letters[known - short_form]};
            put_marked(b, two, 2, mark);
        } else if (c < 0x20 || (ascii && c > 0x7e)) {
            json_char(b, c, mark);
        } else {
            lb_jb_put(b, text->s + start, at - start, text->mark ? text->mark + start : NULL);
        }
    }
    lb_jb_str(b, "\"");
}

static void new_line(struct lb_jbuilder *b, const struct lb_jdump *dump, int level) {
    if (dump->indent) {
        lb_jb_str(b, "\n");
        for (int i = 0; i < level; i++) {
            lb_jb_put(b, dump->indent, dump->indent_len, NULL);
        }
    }
}

static void json_value(struct lb_jbuilder *b, const struct lb_jv *value, const struct lb_jdump *dump,
                       int level);

static void json_list(struct lb_jbuilder *b, const struct lb_jlist *list, const struct lb_jdump *dump,
                      int level) {
    lb_jb_str(b, "[");
    for (size_t i = 0; i < list->n && b->j->status == LB_OK; i++) {
        if (i) {
            lb_jb_text(b, &dump->item_separator);
        }
        new_line(b, dump, level + 1);
        json_value(b, &list->item[i], dump, level + 1);
    }
    if (list->n) {
        new_line(b, dump, level);
    }
    lb_jb_str(b, "]");
}

static void json_key(struct lb_jbuilder *b, const struct lb_jv *key, const struct lb_jdump *dump) {
    if (key->kind == LB_JV_TEXT) {
        json_text(b, key, dump->ascii);
    } else if (key->kind == LB_JV_NONE || lb_jv_is_number(key)) {
        lb_jb_str(b, "\"");
        json_value(b, key, dump, 0);
        lb_jb_str(b, "\"");
    } else {
        lb_jinja_fail(b->j, LB_E_ARG, "tojson: a %s cannot be a key", lb_jv_type(key));
    }
}

/* The places of a dict's keys, sorted where that is asked for. */
static size_t *key_order(struct lb_jinja *j, const struct lb_jdict *dict, bool sort) {
    size_t *order = lb_jinja_alloc(j, dict->n, sizeof *order);
    for (size_t i = 0; order && i < dict->n; i++) {
        size_t at = i;
        while (sort && at > 0 && lb_jv_order(j, &dict->key[i], &dict->key[order[at - 1]]) < 0) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    return j->status == LB_OK ? order : NULL;
}

static void json_dict(struct lb_jbuilder *b, const struct lb_jdict *dict, const struct lb_jdump *dump,
                      int level) {
    const size_t *order = key_order(b->j, dict, dump->sort_keys);
    lb_jb_str(b, "{");
    for (size_t i = 0; order && i < dict->n && b->j->status == LB_OK; i++) {
        if (i) {
            lb_jb_text(b, &dump->item_separator);
        }
        new_line(b, dump, level + 1);
        json_key(b, &dict->key[order[i]], dump);
        lb_jb_text(b, &dump->key_separator);
        json_value(b, &dict->value[order[i]], dump, level + 1);
    }
    if (dict->n) {
        new_line(b, dump, level);
    }
    lb_jb_str(b, "}");
}

static void json_value(struct lb_jbuilder *b, const struct lb_jv *value, const struct lb_jdump *dump,
                       int level) {
    if (!lb_jinja_down(b->j)) {
        return;
    }
    switch (value->kind) {
    case LB_JV_NONE:
        lb_jb_str(b, "null");
        break;
    case LB_JV_BOOL:
        lb_jb_str(b, value->b ? "true" : "false");
        break;
    case LB_JV_INT:
        put_int(b, value->i);
        break;
    case LB_JV_FLOAT:
        put_float(b, value->f, true);
        break;
    case LB_JV_TEXT:
        json_text(b, value, dump->ascii);
        break;
    case LB_JV_DICT:
        json_dict(b, value->dict, dump, level);
        break;
    default:
        if (value->kind == LB_JV_LIST && value->list->sort <= LB_SORT_TUPLE) {
            json_list(b, value->list, dump, level);
        } else {
            lb_jinja_fail(b->j, LB_E_ARG, "tojson: a %s has no form in JSON", lb_jv_type(value));
        }
    }
    lb_jinja_up(b->j);
}

void lb_jb_json(struct lb_jbuilder *b, const struct lb_jv *value, const struct lb_jdump *dump) {
    json_value(b, value, dump, 0);
}
