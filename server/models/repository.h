/* The models that the daemon serves: named on the command line or found in a repository folder, opened in the
 * background.
 *
 * A hosted model is immutable once it is ready and lives as long as somebody holds a reference. Paths come
 * from the operator only, never from clients. Thread-safe: one lock guards the list and the states.
 */
#ifndef LB_MODELS_REPOSITORY_H
#define LB_MODELS_REPOSITORY_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/model/model.h"
#include "common/text/tokenizer.h"
#include "proto/limits.h"
#include "proto/outputs.h"
#include "server/models/stats.h"
#include "server/models/vocab_maps.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum lb_hosted_state { LB_HOSTED_UNLOADED, LB_HOSTED_LOADING, LB_HOSTED_READY, LB_HOSTED_FAILED };

/* One opened model. */
struct lb_hosted {
    char name[LB_MAX_NAME];
    struct lb_model *model;
    const char *version;            /* the fingerprint */
    bool decoder;                   /* reads ids, else features */
    bool batch_invariant;           /* what the self-test found */
    bool test_kept;                 /* at an earlier start */
    char compute[LB_SHA256_HEX];    /* which bits this machine computes; "": not tested */
    size_t base_bytes, row_bytes;   /* and what tape a forward and the head need, about: of all, of a row */
    struct lb_tokenizer *tokenizer; /* NULL: none, or one that this build can't run */
    char chat_template_hash[LB_SHA256_HEX]; /* of the chat template's text; "": there is none */
    char *tokenizer_json;                   /* tokenizer.json's bytes, NULL: none */
    size_t tokenizer_bytes;
    char *tokenizer_config; /* tokenizer_config.json's, NULL: none */
    size_t tokenizer_config_bytes;
    /* The digest at the end of the head's file, once one download has made it (server/api/artifacts.h). */
    atomic_int head_digest_state; /* 0: not yet, 1: being written, 2: there */
    uint8_t head_digest[LB_SHA256_BYTES];
    struct lb_stats stats;
    struct lb_vocab_maps maps;
    atomic_bool published; /* it was served: its end is logged */
    uint64_t instance;     /* of all that this process ever opens, its own */
    /* Called when the last reference is gone; NULL: nobody is interested. */
    void (*gone)(void *context, const struct lb_hosted *hosted);
    void *gone_context;
    atomic_int references;
};

/* Opens a model and its tokenizer. The caller holds the first reference. */
LB_NODISCARD enum lb_status lb_hosted_open(const char *name, const char *path, struct lb_hosted **out,
                                           struct lb_detail *detail);
struct lb_hosted *lb_hosted_retain(struct lb_hosted *hosted);
/* Accepts NULL. */
void lb_hosted_release(struct lb_hosted *hosted);
/* Rows of the head; of a model without one its ids. */
int64_t lb_hosted_vocab(const struct lb_hosted *hosted);
/* Whether outputs of this source are a tap of the forward, and which. */
bool lb_hosted_tap(enum lb_output_source source, enum lb_tap_kind *out);
/* Whether the model gives the output; LB_E_ARG says why not, name being the output's. */
LB_NODISCARD enum lb_status lb_hosted_gives(const struct lb_hosted *hosted, struct lb_output_name what,
                                            const char *name, struct lb_detail *detail);
/* Whether it has outputs that read score_ids. */
bool lb_hosted_scores(const struct lb_hosted *hosted);
/* What decides the shape of an output that the model gives; -1 where the request does. */
struct lb_output_sizes lb_hosted_sizes(const struct lb_hosted *hosted, struct lb_output_name what);

struct lb_repository;

/* Called on the loader thread for each opened model before it is published (the self-test). */
typedef enum lb_status (*lb_prove_fn)(void *context, struct lb_hosted *hosted, struct lb_detail *detail);

/* NULL when out of memory. */
struct lb_repository *lb_repository_create(lb_prove_fn prove, void *context);
/* Waits for the loader. Accepts NULL. */
void lb_repository_destroy(struct lb_repository *repository);

/* Before start: one model. required: the daemon isn't of use without it. LB_E_ARG for a name that is taken or
 * has other characters than letters, digits, '.', '_' and '-'. */
LB_NODISCARD enum lb_status lb_repository_add(struct lb_repository *repository, const char *name,
                                              const char *path, bool required, struct lb_detail *detail);
/* Before start: each subfolder with a config.json, and each .gguf file (named without the ending and, in
 * parts, without their numbers), in the order of names. */
LB_NODISCARD enum lb_status lb_repository_add_folder(struct lb_repository *repository, const char *dir,
                                                     struct lb_detail *detail);
/* Before start: of the folder's models only those named are opened; the others are listed, and can be loaded
 * later. LB_E_NOTFOUND names one that the folder lacks. */
LB_NODISCARD enum lb_status lb_repository_select(struct lb_repository *repository, const char *const *names,
                                                 size_t n, struct lb_detail *detail);
size_t lb_repository_count(struct lb_repository *repository);

/* Opens all in the background, in order, then waits for orders; finished (may be NULL) is called at the end
 * on the loader thread, with LB_OK or the first failure of a required model (or of all). */
LB_NODISCARD enum lb_status lb_repository_start(struct lb_repository *repository,
                                                void (*finished)(void *context, enum lb_status status,
                                                                 const struct lb_detail *detail),
                                                struct lb_detail *detail);
/* Ends the loader's thread: what it is opening is finished, orders that wait get LB_E_CANCELLED. Nothing
 * happens when it was never started. */
void lb_repository_stop(struct lb_repository *repository);

/* One order for the loader's thread: open a model (again: what is served stays until the new one is ready,
 * and for good when that can't be opened), or let it go. Requests under way keep what they began with until
 * they are answered; the log says when the last one is (model_closed). */
struct lb_load_order {
    char name[LB_MAX_NAME];
    bool load;
    /* Called once, on the loader's thread or by stop, with status and detail filled in. */
    void (*done)(struct lb_load_order *order);
    void *context;
    enum lb_status status;
    struct lb_detail detail;
    char version[LB_SHA256_HEX]; /* of what is served now, after a load */
    struct lb_load_order *next;
};
/* The order is borrowed until done. Names are those of the list, and what has appeared in the repository
 * folder since. LB_E_NOTFOUND: no such name; LB_E_UNAVAILABLE: stopped. Then done isn't called. */
LB_NODISCARD enum lb_status lb_repository_order(struct lb_repository *repository, struct lb_load_order *order,
                                                struct lb_detail *detail);

/* Opens all, now, on this thread; stops at the first failure. */
LB_NODISCARD enum lb_status lb_repository_open_all(struct lb_repository *repository,
                                                   struct lb_detail *detail);

/* A reference to a ready model. version "" or NULL: whichever is served. LB_E_NOTFOUND: no such model or
 * version, or it was unloaded or could not be opened (the detail says why); LB_E_UNAVAILABLE: it is still
 * loading. */
LB_NODISCARD enum lb_status lb_repository_get(struct lb_repository *repository, const char *name,
                                              const char *version, struct lb_hosted **out,
                                              struct lb_detail *detail);
/* All models have been tried, and one at least is ready. */
bool lb_repository_ready(struct lb_repository *repository);
/* All that were there at the start have been tried. */
bool lb_repository_tried(struct lb_repository *repository);
/* The body of POST /v2/repository/index; only_ready leaves out the others. NULL when out of memory. */
json_t *lb_repository_index(struct lb_repository *repository, bool only_ready);
/* References to all ready models, in a list on the heap (lb_free, after a release of each). LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_repository_list(struct lb_repository *repository, struct lb_hosted ***out,
                                               size_t *out_n);

#endif
