/* The threads between HTTP and the engine: they unpack, decode, digest, encode and pack.
 *
 * Tasks wait in two lines, light and heavy; within a line clients take turns, whoever has how many. The first
 * thread takes light tasks only (where there is more than one), so that a small question never waits until a
 * large answer is written. Thread-safe.
 */
#ifndef LB_HTTP_CODEC_H
#define LB_HTTP_CODEC_H

#include "common/base/status.h"
#include "common/base/turns.h"

#include <stdbool.h>

/* One task; part of what it works on. */
struct lb_codec_task {
    void (*run)(struct lb_codec_task *task); /* the task is the callee's again once it is called */
    struct lb_turn turn;                     /* with its client */
    bool heavy;
};

struct lb_codec;

/* At least one thread. */
LB_NODISCARD enum lb_status lb_codec_start(int threads, struct lb_codec **out, struct lb_detail *detail);
/* Runs what waits, then ends the threads. Accepts NULL. */
void lb_codec_stop(struct lb_codec *codec);
void lb_codec_push(struct lb_codec *codec, struct lb_codec_task *task);

#endif
