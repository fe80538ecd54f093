/* What str can do, on texts with marks. For common/chat only. */
#ifndef LB_CHAT_TEXTS_H
#define LB_CHAT_TEXTS_H

#include "common/chat/value.h"

enum lb_jcase { LB_CASE_UPPER, LB_CASE_LOWER, LB_CASE_CAPITALIZE, LB_CASE_TITLE };
enum lb_jside { LB_SIDE_LEFT = 1, LB_SIDE_RIGHT = 2, LB_SIDE_BOTH = 3 };

/* chars: a text, or anything else for white space. */
struct lb_jv lb_jtext_strip(struct lb_jinja *j, const struct lb_jv *text, const struct lb_jv *chars,
                            int side);
/* separator: a text, or anything else for runs of white space; max < 0: all. */
struct lb_jv lb_jtext_split(struct lb_jinja *j, const struct lb_jv *text, const struct lb_jv *separator,
                            int64_t max, bool from_right);
struct lb_jv lb_jtext_lines(struct lb_jinja *j, const struct lb_jv *text, bool keep_ends);
struct lb_jv lb_jtext_replace(struct lb_jinja *j, const struct lb_jv *text, const struct lb_jv *from,
                              const struct lb_jv *to, int64_t max);
/* LB_E_UNSUPPORTED for characters that become several. */
struct lb_jv lb_jtext_case(struct lb_jinja *j, const struct lb_jv *text, enum lb_jcase to);
/* The byte at which part begins first (last), -1 for nowhere. */
int64_t lb_jtext_find(const struct lb_jv *text, const struct lb_jv *part, bool last);
bool lb_jtext_begins(const struct lb_jv *text, const struct lb_jv *part);
bool lb_jtext_ends(const struct lb_jv *text, const struct lb_jv *part);
/* Joins the texts of list with between. */
struct lb_jv lb_jtext_join(struct lb_jinja *j, const struct lb_jv *between, const struct lb_jlist *list);
/* The count of characters in the first n bytes. */
int64_t lb_jtext_characters(const struct lb_jv *text, size_t n);
/* format % values. */
struct lb_jv lb_jtext_percent(struct lb_jinja *j, const struct lb_jv *format, const struct lb_jv *values);

#endif
