/* The machinery behind teacher.h: questions in, answers out, and in between a thread that looks into the
 * cache, groups what is missing into requests, spreads them over replicas, asks again what failed, and checks
 * and stores what comes back.
 *
 * One sequence asked of one teacher is an item; items that mean the same are asked once, however many
 * questions wait for them. The thread owns items, requests and pools; questions, counters and the first fatal
 * error lie under a lock.
 */
#ifndef LB_TEACHERS_QUESTIONS_H
#define LB_TEACHERS_QUESTIONS_H

#include "trainer/cache/cache.h"
#include "trainer/teachers/local.h"
#include "trainer/teachers/teachers.h"
#include "trainer/wire/http_client.h"

struct lb_asker;

/* A teacher as the asker sees it. Everything is the caller's and stays as it is while the asker lives. */
struct lb_asker_teacher {
    const char *name, *token; /* token NULL: none */
    const char *const *urls;
    const bool *reached; /* [n_urls] answered when the run began */
    int n_urls;
    struct lb_local *local; /* NULL: not ours */
    const struct lb_dialect *dialect;
    struct lb_teacher_info info;
    /* [n_urls] by which each is asked for the model; "": by its name. Copied. */
    const char (*ids)[LB_MAX_MODEL_ID];
    const struct lb_vocab_map *map; /* of trimmed ids, which samples have; NULL: they have its own */
    struct lb_ask_spec spec;        /* of questions that have none of their own */
};

struct lb_asker_options {
    struct lb_client *http;
    struct lb_cache *cache; /* NULL: none */
    enum lb_lost_teacher on_lost;
    uint64_t timeout_ns; /* of one request */
    uint64_t give_up_ns; /* how long a teacher may be lost (but for wait) or answer wrongly; 0: for ever */
    uint64_t seed;       /* of the back-off's jitter */
    volatile sig_atomic_t *stop;
};

/* Starts the thread. teachers [n]. */
LB_NODISCARD enum lb_status lb_asker_create(const struct lb_asker_options *options,
                                            const struct lb_asker_teacher *teachers, unsigned n,
                                            struct lb_asker **out, struct lb_detail *detail);
/* Calls off what is under way. Accepts NULL. Before the HTTP client and the cache. */
void lb_asker_destroy(struct lb_asker *asker);

/* The sample with the whole vocabulary's ids; *out_ids is what it points to then, to be freed (NULL where map
 * is NULL). LB_E_ARG: an id that the map has not; LB_E_UNSUPPORTED: further inputs. teacher: for errors. */
LB_NODISCARD enum lb_status lb_sample_through(const struct lb_vocab_map *map, const char *teacher,
                                              const struct lb_sample *from, struct lb_sample *out,
                                              int32_t **out_ids, struct lb_detail *detail);

/* Whether the cache (NULL: none) holds a good answer of that teacher to spec (normalised) about the
 * sample under key: then it is in out, its data in arena. A bad one goes, and the log says so; that the cache
 * cannot be read is said unless *complained. */
bool lb_answer_kept(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES],
                    const struct lb_teacher_info *info, const char *teacher, const struct lb_ask_spec *spec,
                    const struct lb_sample *sample, struct lb_arena *arena, bool *complained,
                    struct lb_answer *out);

/* As lb_teachers_submit_as (specs NULL: the teachers'), _take, _release, _stats. submit, take and release are
 * called by one thread. */
LB_NODISCARD enum lb_status lb_asker_submit(struct lb_asker *asker, int64_t number,
                                            const struct lb_sample *samples, int64_t n, const bool *wanted,
                                            const struct lb_ask_spec *specs, struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_asker_take(struct lb_asker *asker, int64_t number,
                                          const struct lb_answer *const **out_answers,
                                          struct lb_detail *detail);
void lb_asker_release(struct lb_asker *asker, int64_t number);
/* As lb_teachers_next. */
int64_t lb_asker_next(struct lb_asker *asker);
void lb_asker_stats(struct lb_asker *asker, struct lb_teachers_stats *out);

#endif
