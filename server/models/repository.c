#include "server/models/repository.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/formats/gguf.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How often the files of models that are served are looked after. */
#define LOOK_AFTER_NS LB_SECOND_NS

struct entry {
    char name[LB_MAX_NAME];
    char *path; /* never changes */
    bool required;
    enum lb_hosted_state state;
    char reason[LB_DETAIL_TEXT];
    struct lb_hosted *hosted; /* when ready */
};

struct lb_repository {
    lb_prove_fn prove;
    void *context;
    void (*finished)(void *context, enum lb_status status, const struct lb_detail *detail);
    pthread_t loader;
    bool started;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    char *folder;           /* --repository, NULL */
    struct entry **entries; /* each stays where it is */
    size_t n;
    struct lb_load_order *orders; /* oldest first */
    bool tried;                   /* all that were there at the start */
    bool stopping;
};

struct lb_repository *lb_repository_create(lb_prove_fn prove, void *context) {
    struct lb_repository *r = lb_calloc(1, sizeof *r);
    if (r) {
        r->prove = prove;
        r->context = context;
        pthread_mutex_init(&r->lock, NULL);
        pthread_condattr_t monotonic;
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&r->work, &monotonic);
        pthread_condattr_destroy(&monotonic);
    }
    return r;
}

static bool is_stopping(struct lb_repository *r) {
    pthread_mutex_lock(&r->lock);
    bool stopping = r->stopping;
    pthread_mutex_unlock(&r->lock);
    return stopping;
}

void lb_repository_stop(struct lb_repository *r) {
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
    if (r->started) {
        pthread_join(r->loader, NULL);
        r->started = false;
    }
    /* No lock: orders aren't taken any more, and the loader is gone. */
    while (r->orders) {
        struct lb_load_order *order = r->orders;
        r->orders = order->next;
        order->status = lb_fail(&order->detail, LB_E_CANCELLED, "this daemon is shutting down");
        order->done(order);
    }
}

void lb_repository_destroy(struct lb_repository *r) {
    if (!r) {
        return;
    }
    lb_repository_stop(r);
    for (size_t i = 0; i < r->n; i++) {
        lb_hosted_release(r->entries[i]->hosted);
        lb_free(r->entries[i]->path);
        lb_free(r->entries[i]);
    }
    lb_free(r->entries);
    lb_free(r->folder);
    pthread_cond_destroy(&r->work);
    pthread_mutex_destroy(&r->lock);
    lb_free(r);
}

/* ---- the list ---- */

static bool name_is_good(const char *name) {
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(name);
    return len > 0 && len < LB_MAX_NAME && strspn(name, good) == len && name[0] != '.';
}

static struct entry *find(struct lb_repository *r, const char *name) {
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->entries[i]->name, name) == 0) {
            return r->entries[i];
        }
    }
    return NULL;
}

/* Under the lock (or before start). */
static enum lb_status add_entry(struct lb_repository *r, const char *name, const char *path, bool required,
                                struct lb_detail *detail) {
    if (!name_is_good(name)) {
        return lb_fail(
            detail, LB_E_ARG,
            "model name \"%.64s\": 1 to %d letters, digits, '.', '_' or '-', not beginning with '.'", name,
            LB_MAX_NAME - 1);
    }
    if (find(r, name)) {
        return lb_fail(detail, LB_E_ARG, "model name %s: given twice (%s and %s)", name, find(r, name)->path,
                       path);
    }
    struct entry **grown = lb_realloc_array(r->entries, r->n + 1, sizeof *grown);
    if (grown) {
        r->entries = grown;
    }
    struct entry *entry = lb_calloc(1, sizeof *entry);
    char *copy = lb_strdup(path);
    if (!grown || !entry || !copy) {
        lb_free(entry);
        lb_free(copy);
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    *entry = (struct entry){.path = copy, .required = required, .state = LB_HOSTED_LOADING};
    snprintf(entry->name, sizeof entry->name, "%s", name);
    r->entries[r->n++] = entry;
    return LB_OK;
}

enum lb_status lb_repository_add(struct lb_repository *r, const char *name, const char *path, bool required,
                                 struct lb_detail *detail) {
    return add_entry(r, name, path, required, detail);
}

/* A subfolder with a config.json, or a .gguf file (the first of its parts): writes the model's name. */
static bool is_model(const char *path, const char *file, char name[LB_MAX_NAME]) {
    size_t len = strlen(file);
    if (file[0] == '.' || len >= LB_MAX_NAME) {
        return false;
    }
    snprintf(name, LB_MAX_NAME, "%s", file);
    if (lb_is_dir(path)) {
        char *config = lb_path_join(path, "config.json");
        bool is = config && lb_file_exists(config);
        lb_free(config);
        return is;
    }
    size_t stem = len > 5 ? len - 5 : 0;
    int part = 1, parts;
    if (stem == 0 || !lb_ends_with(file, ".gguf")) {
        return false;
    }
    (void)lb_gguf_part_name(file, &stem, &part, &parts);
    name[stem] = '\0';
    return part == 1; /* which opens the others */
}

/* Under the lock (or before start): adds what the folder holds; only: nothing but the model of this name. */
static enum lb_status scan(struct lb_repository *r, const char *dir, const char *only,
                           struct lb_detail *detail) {
    struct dirent **items = NULL;
    int n = scandir(dir, &items, NULL, alphasort);
    if (n < 0) {
        return lb_fail_errno(detail, errno == ENOENT ? LB_E_NOTFOUND : LB_E_IO, errno, "--repository %s",
                             dir);
    }
    enum lb_status status = LB_OK;
    for (int i = 0; i < n; i++) {
        char name[LB_MAX_NAME];
        char *path = lb_path_join(dir, items[i]->d_name);
        if (!path) {
            status = lb_fail(detail, LB_E_NOMEM, "out of memory");
        } else if (status == LB_OK && is_model(path, items[i]->d_name, name) &&
                   (!only || strcmp(name, only) == 0)) {
            status = add_entry(r, name, path, false, detail);
        }
        lb_free(path);
        free(items[i]);
    }
    free(items);
    return status;
}

enum lb_status lb_repository_add_folder(struct lb_repository *r, const char *dir, struct lb_detail *detail) {
    r->folder = lb_strdup(dir);
    return r->folder ? scan(r, dir, NULL, detail) : lb_fail(detail, LB_E_NOMEM, "out of memory");
}

enum lb_status lb_repository_select(struct lb_repository *r, const char *const *names, size_t n,
                                    struct lb_detail *detail) {
    for (size_t i = 0; i < n; i++) {
        if (!find(r, names[i])) {
            return lb_fail(detail, LB_E_NOTFOUND, "--load-model %s: no such model in --repository %s",
                           names[i], r->folder);
        }
    }
    for (size_t e = 0; e < r->n; e++) {
        struct entry *entry = r->entries[e];
        bool named = entry->required; /* of the command line */
        for (size_t i = 0; i < n; i++) {
            named |= strcmp(entry->name, names[i]) == 0;
        }
        entry->required = named;
        if (!named) {
            entry->state = LB_HOSTED_UNLOADED;
            snprintf(entry->reason, sizeof entry->reason, "not loaded: --load-model names others");
        }
    }
    return LB_OK;
}

size_t lb_repository_count(struct lb_repository *r) {
    pthread_mutex_lock(&r->lock);
    size_t n = r->n;
    pthread_mutex_unlock(&r->lock);
    return n;
}

/* ---- opening ---- */

static void publish(struct lb_repository *r, struct entry *entry, struct lb_hosted *hosted,
                    const struct lb_detail *detail) {
    pthread_mutex_lock(&r->lock);
    struct lb_hosted *old = entry->hosted;
    if (hosted || !old) {
        entry->hosted = hosted;
        entry->state = hosted ? LB_HOSTED_READY : LB_HOSTED_FAILED;
        snprintf(entry->reason, sizeof entry->reason, "%s", hosted ? "" : detail->text);
    } else {
        /* What is served goes on being served, and the index says so. */
        snprintf(entry->reason, sizeof entry->reason, "served on, since another could not be loaded: %.700s",
                 detail->text);
        old = NULL;
    }
    if (hosted) {
        atomic_store(&hosted->published, true);
    }
    pthread_mutex_unlock(&r->lock);
    lb_hosted_release(old);
}

/* Whoever asks meanwhile is told so, or gets what is served. */
static void announce(struct lb_repository *r, struct entry *entry) {
    pthread_mutex_lock(&r->lock);
    entry->state = entry->hosted ? LB_HOSTED_READY : LB_HOSTED_LOADING;
    snprintf(entry->reason, sizeof entry->reason, "%s",
             entry->hosted ? "served while it is being loaded anew" : "");
    pthread_mutex_unlock(&r->lock);
}

static enum lb_status open_entry(struct lb_repository *r, struct entry *entry, struct lb_detail *detail) {
    uint64_t begun = lb_now_ns();
    announce(r, entry);
    struct lb_hosted *hosted = NULL;
    /* Where a link leads now: all files are of one folder, also when it is turned meanwhile. */
    char real[PATH_MAX];
    const char *path = realpath(entry->path, real) ? real : entry->path;
    enum lb_status status = lb_hosted_open(entry->name, path, &hosted, detail);
    if (status == LB_OK && r->prove) {
        status = r->prove(r->context, hosted, detail);
    }
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "model_ready",
               "model=%s fingerprint=%s parameters=%lld bytes=%zu batch_invariant=%s compute=%s "
               "self_test=%s load_ms=%llu",
               entry->name, hosted->version, (long long)lb_model_parameters(hosted->model),
               lb_model_bytes(hosted->model), hosted->batch_invariant ? "true" : "false", hosted->compute,
               hosted->test_kept ? "kept" : "run", (unsigned long long)((lb_now_ns() - begun) / LB_MS_NS));
    } else {
        lb_log(LB_LOG_ERROR, "model_failed", "model=%s reason=\"%s\"", entry->name, detail->text);
        lb_hosted_release(hosted);
        hosted = NULL;
    }
    publish(r, entry, hosted, detail);
    return status;
}

/* written: the file for which it is; NULL: it was ordered. */
static void withdraw(struct lb_repository *r, struct entry *entry, const char *written) {
    pthread_mutex_lock(&r->lock);
    struct lb_hosted *old = entry->hosted;
    entry->hosted = NULL;
    entry->state = LB_HOSTED_UNLOADED;
    if (written) {
        snprintf(
            entry->reason, sizeof entry->reason,
            "a file of it was written to while it was served, %.600s; an admin can load it again (files are "
            "replaced by a rename)",
            written);
    } else {
        snprintf(entry->reason, sizeof entry->reason, "it was unloaded; an admin can load it again");
    }
    pthread_mutex_unlock(&r->lock);
    lb_hosted_release(old);
    lb_log(LB_LOG_INFO, "model_unloaded", "model=%s", entry->name);
}

/* All that were there at the start; the first failure that matters is told. */
static void open_first(struct lb_repository *r) {
    struct lb_detail first = {0}, any = {0};
    size_t n_ready = 0, n = lb_repository_count(r); /* orders may add more */
    for (size_t i = 0; i < n && !is_stopping(r); i++) {
        struct lb_detail detail = {0};
        pthread_mutex_lock(&r->lock);
        struct entry *entry = r->entries[i];
        bool asked_for = entry->state == LB_HOSTED_LOADING;
        pthread_mutex_unlock(&r->lock);
        if (!asked_for) {
            continue;
        }
        enum lb_status status = open_entry(r, entry, &detail);
        n_ready += status == LB_OK;
        if (status != LB_OK) {
            any = any.code == LB_OK ? detail : any;
            first = entry->required && first.code == LB_OK ? detail : first;
        }
    }
    if (n_ready == 0 && first.code == LB_OK) {
        first = any;
    }
    pthread_mutex_lock(&r->lock);
    r->tried = true;
    bool stopping = r->stopping;
    pthread_mutex_unlock(&r->lock);
    if (r->finished && !stopping) {
        r->finished(r->context, first.code, &first);
    }
}

static void obey(struct lb_repository *r, struct lb_load_order *order) {
    pthread_mutex_lock(&r->lock);
    struct entry *entry = find(r, order->name);
    pthread_mutex_unlock(&r->lock);
    order->status = LB_OK;
    order->version[0] = '\0';
    if (order->load) {
        order->status = open_entry(r, entry, &order->detail);
        if (order->status == LB_OK) { /* nobody but this thread takes it away */
            snprintf(order->version, sizeof order->version, "%s", entry->hosted->version);
        }
    } else {
        withdraw(r, entry, NULL);
    }
    order->done(order); /* it may be gone after this */
}

/* A model whose file was written to while it was served answers with who knows what: it is no longer served.
 */
static void look_after(struct lb_repository *r) {
    for (size_t i = 0, n = lb_repository_count(r); i < n; i++) {
        pthread_mutex_lock(&r->lock);
        struct entry *entry = r->entries[i];
        struct lb_hosted *hosted = entry->hosted; /* which only this thread takes away */
        pthread_mutex_unlock(&r->lock);
        const char *path = hosted ? lb_model_written(hosted->model) : NULL;
        if (!path) {
            continue;
        }
        lb_log(LB_LOG_ERROR, "model_written", "model=%s file=\"%s\" fingerprint=%s", entry->name, path,
               hosted->version);
        withdraw(r, entry, path);
    }
}

/* Under the lock: waits for an order, or until it is time to look after the files. */
static void wait_for_orders(struct lb_repository *r) {
    uint64_t until = lb_now_ns() + LOOK_AFTER_NS;
    struct timespec at = {.tv_sec = (time_t)(until / LB_SECOND_NS), .tv_nsec = (long)(until % LB_SECOND_NS)};
    if (pthread_cond_timedwait(&r->work, &r->lock, &at) == ETIMEDOUT) {
        pthread_mutex_unlock(&r->lock);
        look_after(r);
        pthread_mutex_lock(&r->lock);
    }
}

static void *load(void *argument) {
    struct lb_repository *r = argument;
    open_first(r);
    pthread_mutex_lock(&r->lock);
    while (!r->stopping) {
        struct lb_load_order *order = r->orders;
        if (!order) {
            wait_for_orders(r);
            continue;
        }
        r->orders = order->next;
        pthread_mutex_unlock(&r->lock);
        obey(r, order);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

enum lb_status lb_repository_start(struct lb_repository *r,
                                   void (*finished)(void *context, enum lb_status status,
                                                    const struct lb_detail *detail),
                                   struct lb_detail *detail) {
    r->finished = finished;
    int error = pthread_create(&r->loader, NULL, load, r);
    if (error != 0) {
        return lb_fail_errno(detail, LB_E_NOMEM, error, "starting the loader's thread");
    }
    r->started = true;
    return LB_OK;
}

static enum lb_status order_locked(struct lb_repository *r, struct lb_load_order *order,
                                   struct lb_detail *detail) {
    if (r->stopping) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "this daemon is shutting down");
    }
    enum lb_status status = LB_OK;
    if (!find(r, order->name) && r->folder) {
        status = name_is_good(order->name) ? scan(r, r->folder, order->name, detail) : LB_OK;
    }
    if (status == LB_OK && !find(r, order->name)) {
        status = lb_fail(detail, LB_E_NOTFOUND, "model \"%.128s\" is not in this daemon's repository",
                         order->name);
    }
    if (status != LB_OK) {
        return status;
    }
    struct lb_load_order **tail = &r->orders;
    while (*tail) {
        tail = &(*tail)->next;
    }
    order->next = NULL;
    *tail = order;
    pthread_cond_signal(&r->work);
    return LB_OK;
}

enum lb_status lb_repository_order(struct lb_repository *r, struct lb_load_order *order,
                                   struct lb_detail *detail) {
    pthread_mutex_lock(&r->lock);
    enum lb_status status = order_locked(r, order, detail);
    pthread_mutex_unlock(&r->lock);
    return status;
}

enum lb_status lb_repository_open_all(struct lb_repository *r, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < r->n && status == LB_OK; i++) {
        status = r->entries[i]->state == LB_HOSTED_LOADING ? open_entry(r, r->entries[i], detail) : LB_OK;
    }
    return status;
}

/* ---- asking ---- */

static const char *state_name(enum lb_hosted_state state) {
    switch (state) {
    case LB_HOSTED_READY:
        return "READY";
    case LB_HOSTED_LOADING:
        return "LOADING";
    default:
        return "UNAVAILABLE";
    }
}

static enum lb_status get_locked(struct lb_repository *r, const char *name, const char *version,
                                 struct lb_hosted **out, struct lb_detail *detail) {
    struct entry *entry = find(r, name);
    if (!entry) {
        return lb_fail(detail, LB_E_NOTFOUND,
                       "model \"%.128s\" is not served here; POST /v2/repository/index lists what is", name);
    }
    if (entry->state == LB_HOSTED_LOADING) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "model %s is still loading; try again", entry->name);
    }
    if (entry->state != LB_HOSTED_READY) {
        return lb_fail(detail, LB_E_NOTFOUND, "model %s is not served: %s", entry->name, entry->reason);
    }
    if (version && version[0] && strcmp(version, entry->hosted->version) != 0) {
        return lb_fail(detail, LB_E_NOTFOUND, "model %s has version %s here, not %.128s", entry->name,
                       entry->hosted->version, version);
    }
    *out = lb_hosted_retain(entry->hosted);
    return LB_OK;
}

enum lb_status lb_repository_get(struct lb_repository *r, const char *name, const char *version,
                                 struct lb_hosted **out, struct lb_detail *detail) {
    pthread_mutex_lock(&r->lock);
    enum lb_status status = get_locked(r, name, version, out, detail);
    pthread_mutex_unlock(&r->lock);
    return status;
}

bool lb_repository_ready(struct lb_repository *r) {
    pthread_mutex_lock(&r->lock);
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        any |= r->entries[i]->state == LB_HOSTED_READY;
    }
    bool ready = r->tried && any;
    pthread_mutex_unlock(&r->lock);
    return ready;
}

bool lb_repository_tried(struct lb_repository *r) {
    pthread_mutex_lock(&r->lock);
    bool tried = r->tried;
    pthread_mutex_unlock(&r->lock);
    return tried;
}

json_t *lb_repository_index(struct lb_repository *r, bool only_ready) {
    json_t *list = json_array();
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; list && i < r->n; i++) {
        const struct entry *entry = r->entries[i];
        if (only_ready && entry->state != LB_HOSTED_READY) {
            continue;
        }
        json_t *item = json_pack("{s:s,s:s,s:s}", "name", entry->name, "state", state_name(entry->state),
                                 "reason", entry->reason);
        if (item && entry->hosted) {
            json_object_set_new(item, "version", json_string(entry->hosted->version));
        }
        if (!item || json_array_append_new(list, item) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return list;
}

enum lb_status lb_repository_list(struct lb_repository *r, struct lb_hosted ***out, size_t *out_n) {
    size_t n = 0;
    pthread_mutex_lock(&r->lock);
    struct lb_hosted **list = lb_malloc_array(r->n, sizeof *list);
    for (size_t i = 0; list && i < r->n; i++) {
        if (r->entries[i]->state == LB_HOSTED_READY) {
            list[n++] = lb_hosted_retain(r->entries[i]->hosted);
        }
    }
    pthread_mutex_unlock(&r->lock);
    if (!list) {
        return LB_E_NOMEM;
    }
    *out = list;
    *out_n = n;
    return LB_OK;
}
