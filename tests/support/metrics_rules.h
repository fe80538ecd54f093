/* Whether a text is what Prometheus reads (text format 0.0.4) and what its users expect of names: the rules
 * of `promtool check metrics`, and some more. */
#ifndef LB_TESTS_SUPPORT_METRICS_RULES_H
#define LB_TESTS_SUPPORT_METRICS_RULES_H

#include <stdbool.h>

/* False: why says what and where, in one line. */
bool lb_metrics_follow_rules(const char *text, char why[256]);

#endif
