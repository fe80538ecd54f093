/* What one token has had of what its limits let it have: tokens a minute, requests at once. Shared by all
 * that come with the token, and kept while token files are read anew. Thread-safe.
 *
 * The minute is a bucket that holds tokens_per_minute and fills up evenly. A request is let in while there is
 * something in it, and takes its tokens out, also more than there are: the next one then waits for as long as
 * that takes to come back. So a request of any size passes, and what passes in the long run is the limit.
 */
#ifndef LB_HTTP_QUOTA_H
#define LB_HTTP_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

struct lb_quota;

/* Without limits, and one reference; NULL when out of memory. */
struct lb_quota *lb_quota_create(void);
struct lb_quota *lb_quota_retain(struct lb_quota *quota);
/* Accepts NULL. */
void lb_quota_release(struct lb_quota *quota);

/* From now on; 0: any number. What was used stays used. */
void lb_quota_limit(struct lb_quota *quota, int64_t tokens_per_minute, int64_t concurrent, uint64_t now_ns);
/* A request begins; false, and it doesn't, when as many as may are there. Each that began ends by leave. */
bool lb_quota_enter(struct lb_quota *quota);
void lb_quota_leave(struct lb_quota *quota);
/* It needs so many tokens computed: 0 when it may, else the seconds, at least 1, until one may. */
int64_t lb_quota_take(struct lb_quota *quota, int64_t tokens, uint64_t now_ns);
/* More of a request that was let in: taken out whatever there is. */
void lb_quota_charge(struct lb_quota *quota, int64_t tokens, uint64_t now_ns);
/* They were not computed after all. */
void lb_quota_give_back(struct lb_quota *quota, int64_t tokens);

#endif
