/* What is taken out of a value: attributes, items, slices. For common/chat only. */
#ifndef LB_CHAT_ACCESS_H
#define LB_CHAT_ACCESS_H

#include "common/chat/value.h"

/* Environment.getattr and getitem: undefined where there is nothing; an error on undefined values. */
struct lb_jv lb_jeval_attr(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *name);
struct lb_jv lb_jeval_item(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *key);
/* "a.b.0" as filters take it. */
struct lb_jv lb_jeval_path(struct lb_jinja *j, struct lb_jv of, const struct lb_jv *path);
/* of[start:stop:step], each a whole number or None. */
struct lb_jv lb_jinja_slice(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *start,
                            const struct lb_jv *stop, const struct lb_jv *step);

#endif
