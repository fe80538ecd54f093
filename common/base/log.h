/* One event, one line, on standard error: `time level event key=value ...` or the same as a JSON object.
 * Programs log; libraries do not. Thread-safe. No secrets, no per-token lines. Units stand in the key:
 * wait_ms=3.
 */
#ifndef LB_BASE_LOG_H
#define LB_BASE_LOG_H

#include "common/base/notes.h"
#include "common/base/status.h"

#include <stdbool.h>

enum lb_log_level { LB_LOG_DEBUG, LB_LOG_INFO, LB_LOG_WARN, LB_LOG_ERROR };

/* Defaults: INFO, text. Call before threads start. */
void lb_log_setup(enum lb_log_level least, bool json);
/* event is a short constant word ("listening"); format gives the rest as key=value pairs (values with spaces
 * in double quotes), or "" for none. In JSON form the pairs become members. */
void lb_log(enum lb_log_level level, const char *event, const char *format, ...) LB_PRINTF(3, 4);

/* Each note as a warning of that event; model: its member of that name, NULL: none. */
void lb_log_notes(const char *event, const char *model, const struct lb_notes *notes);

/* From now on lines are written by a thread of their own, so that standard error that nobody reads holds up
 * nobody: at most 256 KiB of lines wait; those beyond are dropped and counted (event log_dropped).
 * LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_log_start_thread(void);
/* Waits until all that was logged is written, at most this long: before the process ends. */
void lb_log_flush(unsigned ms);

#endif
