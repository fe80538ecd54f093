/* Meeting teachers: how they are reached, patience with those that are away or answer badly, and what they
 * say of themselves. */
#include "common/base/log.h"
#include "trainer/teachers/opened.h"
#include "trainer/wire/stated.h"
#include "trainer/wire/url.h"

#include <stdio.h>
#include <string.h>

#define CONTACT_TIMEOUT_NS (10 * LB_SECOND_NS)
#define FIRST_WAIT_NS (100 * LB_MS_NS)
#define LONGEST_WAIT_NS (5 * LB_SECOND_NS)
#define TOLD_EVERY_NS (10 * LB_SECOND_NS)
#define ROUNDS_REFUSED 3

/* ---- how they are reached ---- */

bool lb_teacher_is_local(const struct lb_teacher_address *is) {
    return lb_url_scheme(is->url, NULL) == LB_SCHEME_LOCAL;
}

uint64_t lb_teachers_timeout_ns(const struct lb_teachers *teachers) {
    double seconds = teachers->options.timeout > 0 ? teachers->options.timeout : 60;
    return (uint64_t)(seconds * (double)LB_SECOND_NS);
}

uint64_t lb_teachers_give_up_ns(const struct lb_teachers *teachers) {
    return (uint64_t)(teachers->options.give_up_after * (double)LB_SECOND_NS);
}

struct lb_contact lb_teacher_contact(const struct lb_teachers *teachers, const struct teacher *teacher,
                                     int replica) {
    uint64_t timeout = lb_teachers_timeout_ns(teachers);
    return (struct lb_contact){.http = teachers->http,
                               .name = teacher->label,
                               .base = teacher->urls[replica],
                               .token = teacher->token,
                               .naming = teacher->is->naming,
                               .timeout_ns = timeout < CONTACT_TIMEOUT_NS ? timeout : CONTACT_TIMEOUT_NS,
                               .stop = teachers->options.stop};
}

/* ---- patience ---- */

/* What became of one round: what may pass, and what the servers mean. */
struct round {
    struct lb_detail away, refused; /* the first of each */
    bool damaged;                   /* away: an answer came, but not as it was sent */
};

/* Over all rounds. */
struct patience {
    uint64_t began_ns, told_ns, pause_ns;
    unsigned refused; /* rounds in which every replica refused */
};

static struct patience begin(void) {
    return (struct patience){.began_ns = lb_now_ns(), .pause_ns = FIRST_WAIT_NS};
}

/* Notes a replica's failure. */
static void note(struct round *round, enum lb_status status, bool damaged, const struct lb_detail *why) {
    bool passes = damaged || status == LB_E_UNAVAILABLE || status == LB_E_TIMEOUT || status == LB_E_INTERNAL;
    struct lb_detail *kept = passes ? &round->away : &round->refused;
    round->damaged = round->damaged || damaged;
    lb_fail(kept, status, "%s", why->text);
}

/* Whether what may pass has taken longer than a teacher may be away, or answer wrongly. */
static bool is_over(const struct lb_teachers *teachers, const struct patience *patience,
                    const struct round *round, uint64_t now) {
    uint64_t give_up = lb_teachers_give_up_ns(teachers);
    return (teachers->options.on_lost != LB_LOST_WAIT || round->damaged) && give_up != 0 &&
           now - patience->began_ns > give_up;
}

/* After a round in which no replica gave it: pauses and returns LB_OK when another is to be made, else the
 * status to end with, and why. What all replicas refuse is believed when they have said so three times; one
 * of several is never believed alone. A daemon of our own that lives is loading, however long that takes. */
static enum lb_status wait_for_more(const struct lb_teachers *teachers, const struct teacher *teacher,
                                    struct patience *patience, const struct round *round,
                                    struct lb_detail *detail) {
    uint64_t now = lb_now_ns();
    struct lb_detail ended = {0};
    const struct lb_detail *why = round->away.code != LB_OK ? &round->away : &round->refused;
    if (teacher->local && lb_local_check(teacher->local, &ended)) {
        return lb_fail(detail, ended.code, "%s", ended.text);
    }
    if (round->away.code == LB_OK && ++patience->refused >= ROUNDS_REFUSED) {
        return lb_fail(detail, why->code, "%s", why->text);
    }
    if (!teacher->local && is_over(teachers, patience, round, now)) {
        return lb_fail(detail, why->code, "%s; no %sanswer for %.0f s", why->text,
                       round->damaged ? "good " : "",
                       (double)(now - patience->began_ns) / (double)LB_SECOND_NS);
    }
    if (now - patience->began_ns > LB_SECOND_NS &&
        (!patience->told_ns || now - patience->told_ns > TOLD_EVERY_NS)) {
        patience->told_ns = now;
        lb_log(LB_LOG_WARN, "teacher_lost", "teacher=%s for_s=%.0f error=\"%s\"", teacher->is->name,
               (double)(now - patience->began_ns) / (double)LB_SECOND_NS, why->text);
    }
    for (uint64_t until = now + patience->pause_ns; lb_now_ns() < until;) {
        if (teachers->options.stop && *teachers->options.stop) {
            return lb_fail(detail, LB_E_CANCELLED, "stopped while waiting for %s", teacher->label);
        }
        lb_sleep_ns(20 * LB_MS_NS);
    }
    patience->pause_ns = patience->pause_ns * 2 < LONGEST_WAIT_NS ? patience->pause_ns * 2 : LONGEST_WAIT_NS;
    return LB_OK;
}

enum lb_status lb_teacher_try(const struct lb_teachers *teachers, const struct teacher *teacher,
                              lb_teacher_turn *turn, void *context, struct lb_detail *detail) {
    struct patience patience = begin();
    for (;;) {
        struct round round = {0};
        for (int r = 0; r < teacher->n_urls; r++) {
            struct lb_detail why = {0};
            bool damaged = false;
            enum lb_status status = turn(teachers, teacher, r, context, &damaged, &why);
            if (status == LB_OK) {
                return LB_OK;
            }
            if (status == LB_E_CANCELLED || status == LB_E_NOMEM) {
                return lb_fail(detail, status, "%s", why.text);
            }
            note(&round, status, damaged, &why);
        }
        enum lb_status status = wait_for_more(teachers, teacher, &patience, &round, detail);
        if (status != LB_OK) {
            return status;
        }
    }
}

/* ---- what a teacher says of itself ---- */

bool lb_teacher_is_away(const struct teacher *teacher) {
    return *teacher->urls[0] == '\0' || (lb_teacher_is_local(teacher->is) && teacher->local == NULL);
}

static enum lb_status ask_info(const struct lb_teachers *teachers, const struct teacher *teacher, int replica,
                               struct lb_buf *text, struct lb_teacher_info *out, struct lb_detail *detail) {
    struct lb_contact contact = lb_teacher_contact(teachers, teacher, replica);
    /* A daemon of ours has its own name for its only one. */
    const char *model = teacher->local ? NULL : teacher->is->model;
    return teacher->dialect->info(&contact, model, text, out, detail);
}

static const char *or_unknown(const char *text) {
    return *text ? text : "unknown";
}

/* Replica r says this of itself; the first that answered has spoken for all. */
static enum lb_status agree(const struct lb_teachers *teachers, const struct teacher *teacher, int first,
                            int r, const struct lb_teacher_info *info, struct lb_detail *detail) {
    const struct lb_teacher_info *said = &teacher->info;
    bool same = info->stated[0] ? lb_stated_alike(said, info) : !strcmp(info->fingerprint, said->fingerprint);
    if (!same) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s: its replicas serve different models: %s has fingerprint %s, %s has %s; serve the same "
            "files everywhere",
            teacher->label, teacher->urls[first], said->fingerprint, teacher->urls[r], info->fingerprint);
    }
    if (teachers->options.allow_other_kernels) {
        if (strcmp(info->compute, said->compute) || info->batch_dependent) {
            lb_log(LB_LOG_WARN, "other_kernels",
                   "teacher=%s url=\"%s\" compute=%.16s kernels=\"%s\" batch_invariant=%s first=%.16s",
                   teacher->is->name, teacher->urls[r], or_unknown(info->compute), info->kernels,
                   info->batch_dependent ? "false" : "true", or_unknown(said->compute));
        }
        return LB_OK;
    }
    if (strcmp(info->compute, said->compute)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s: its replicas compute different bits: %s has compute %.16s (%s), %s has %.16s (%s); "
            "give all the same kernels, or set allow_other_kernels: true",
            teacher->label, teacher->urls[first], or_unknown(said->compute), or_unknown(said->kernels),
            teacher->urls[r], or_unknown(info->compute), or_unknown(info->kernels));
    }
    if (info->batch_dependent) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s: %s says batch_invariant: false (%s): its answers depend on what else it computes "
                       "at the time, so no run on them can be repeated or resumed to the same bits; set "
                       "allow_other_kernels: true to train all the same",
                       teacher->label, teacher->urls[r], or_unknown(info->kernels));
    }
    return LB_OK;
}

/* All are asked in the same way, so what one of them cannot do is asked of none; only by what the model is
 * called may they differ. */
static void join(struct teacher *teacher, int r, const struct lb_teacher_info *info) {
    struct lb_teacher_info *all = &teacher->info;
    memcpy(teacher->ids[r], info->model_id, sizeof teacher->ids[r]);
    if (info->max_vocab_maps == 0) {
        all->max_vocab_maps = 0;
    }
    if (teacher->is->most_top_k == 0 && info->most_top_k > 0 &&
        (all->most_top_k == 0 || info->most_top_k < all->most_top_k)) {
        all->most_top_k = info->most_top_k;
    }
}

/* Those that were not reached are asked as the one that was, until they say something else. */
static void guess_ids(struct teacher *teacher) {
    for (int r = 0; r < teacher->n_urls; r++) {
        if (!teacher->reached[r]) {
            memcpy(teacher->ids[r], teacher->info.model_id, sizeof teacher->ids[r]);
        }
    }
}

/* One round over all replicas: *met when at least one answered; they must agree, or the status says that they
 * don't. Others are set aside. */
static enum lb_status ask_replicas(const struct lb_teachers *teachers, struct teacher *teacher,
                                   struct round *round, bool *met, struct lb_detail *detail) {
    struct lb_buf first_text;
    enum lb_status status = LB_OK;
    int first = -1;
    lb_buf_init(&first_text, LB_MAX_INFO_BYTES);
    for (int r = 0; r < teacher->n_urls && status == LB_OK; r++) {
        struct lb_buf text;
        struct lb_teacher_info info;
        struct lb_detail why = {0};
        lb_buf_init(&text, LB_MAX_INFO_BYTES);
        enum lb_status asked = ask_info(teachers, teacher, r, &text, &info, &why);
        teacher->reached[r] = asked == LB_OK;
        if (asked == LB_OK && first < 0) {
            status = lb_teacher_settle(teachers, teacher, &text, &info, detail);
            status = status != LB_OK ? status : lb_teacher_complete(teachers, teacher, &info, detail);
            teacher->info = info;
            first = r;
            first_text = text;
        } else {
            lb_buf_finish(&text);
        }
        if (status != LB_OK) {
            break;
        }
        if (asked == LB_OK) {
            status = agree(teachers, teacher, first, r, &info, detail);
            join(teacher, r, &info);
        } else if (asked == LB_E_CANCELLED || asked == LB_E_NOMEM) {
            status = lb_fail(detail, asked, "%s", why.text);
        } else {
            note(round, asked, false, &why);
            lb_log(teacher->n_urls > 1 ? LB_LOG_WARN : LB_LOG_DEBUG, "replica_aside",
                   "teacher=%s url=\"%s\" error=\"%s\"", teacher->is->name, teacher->urls[r], why.text);
        }
    }
    *met = first >= 0;
    if (status == LB_OK && *met) {
        lb_teacher_remember(teachers, teacher, &first_text);
    }
    lb_buf_finish(&first_text);
    return status;
}

enum lb_status lb_teacher_meet(const struct lb_teachers *teachers, struct teacher *teacher,
                               struct lb_detail *detail) {
    struct patience patience = begin();
    for (;;) {
        struct round round = {0};
        bool met = false;
        enum lb_status status = ask_replicas(teachers, teacher, &round, &met, detail);
        if (status != LB_OK || met) {
            guess_ids(teacher);
            return status;
        }
        if (round.away.code != LB_OK && lb_teacher_recall(teachers, teacher)) {
            guess_ids(teacher);
            lb_log(LB_LOG_WARN, "teacher_offline",
                   "teacher=%s then=\"answers come from the cache\" error=\"%s\"", teacher->is->name,
                   round.away.text);
            return LB_OK;
        }
        status = wait_for_more(teachers, teacher, &patience, &round, detail);
        if (status != LB_OK) {
            return status;
        }
    }
}
