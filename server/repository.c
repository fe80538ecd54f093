#include "server/repository.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    char name[LB_MAX_NAME];
    char *path;
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
    atomic_bool stopping;
    pthread_mutex_t lock;  /* guards all below */
    struct entry *entries; /* the array itself doesn't change after start */
    size_t n;
    bool tried; /* all have been */
};

struct lb_repository *lb_repository_create(lb_prove_fn prove, void *context) {
    struct lb_repository *r = lb_calloc(1, sizeof *r);
    if (r) {
        r->prove = prove;
        r->context = context;
        atomic_init(&r->stopping, false);
        pthread_mutex_init(&r->lock, NULL);
    }
    return r;
}

void lb_repository_destroy(struct lb_repository *r) {
    if (!r) {
        return;
    }
    atomic_store(&r->stopping, true);
    if (r->started) {
        pthread_join(r->loader, NULL);
    }
    for (size_t i = 0; i < r->n; i++) {
        lb_hosted_release(r->entries[i].hosted);
        lb_free(r->entries[i].path);
    }
    lb_free(r->entries);
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
        if (strcmp(r->entries[i].name, name) == 0) {
            return &r->entries[i];
        }
    }
    return NULL;
}

enum lb_status lb_repository_add(struct lb_repository *r, const char *name, const char *path, bool required,
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
    struct entry *grown = lb_realloc_array(r->entries, r->n + 1, sizeof *grown);
    char *copy = lb_strdup(path);
    if (grown) {
        r->entries = grown;
    }
    if (!grown || !copy) {
        lb_free(copy);
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    grown[r->n] = (struct entry){.path = copy, .required = required, .state = LB_HOSTED_LOADING};
    snprintf(grown[r->n].name, sizeof grown[r->n].name, "%s", name);
    r->n++;
    return LB_OK;
}

/* A subfolder with a config.json, or a .gguf file: writes the model's name. */
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
    if (len > 5 && strcmp(file + len - 5, ".gguf") == 0) {
        name[len - 5] = '\0';
        return true;
    }
    return false;
}

enum lb_status lb_repository_add_folder(struct lb_repository *r, const char *dir, struct lb_detail *detail) {
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
        } else if (status == LB_OK && is_model(path, items[i]->d_name, name)) {
            status = lb_repository_add(r, name, path, false, detail);
        }
        lb_free(path);
        free(items[i]);
    }
    free(items);
    return status;
}

size_t lb_repository_count(struct lb_repository *r) {
    return r->n;
}

/* ---- opening ---- */

static enum lb_status open_entry(struct lb_repository *r, size_t i, struct lb_detail *detail) {
    struct entry *entry = &r->entries[i];
    uint64_t begun = lb_now_ns();
    struct lb_hosted *hosted = NULL;
    enum lb_status status = lb_hosted_open(entry->name, entry->path, &hosted, detail);
    if (status == LB_OK && r->prove) {
        status = r->prove(r->context, hosted, detail);
    }
    if (status != LB_OK) {
        lb_hosted_release(hosted);
        hosted = NULL;
    }
    pthread_mutex_lock(&r->lock);
    entry->hosted = hosted;
    entry->state = status == LB_OK ? LB_HOSTED_READY : LB_HOSTED_FAILED;
    if (status != LB_OK) {
        snprintf(entry->reason, sizeof entry->reason, "%s", detail->text);
    }
    pthread_mutex_unlock(&r->lock);
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "model_ready",
               "model=%s fingerprint=%s parameters=%lld bytes=%zu batch_invariant=%s load_ms=%llu",
               entry->name, hosted->version, (long long)lb_model_parameters(hosted->model),
               lb_model_bytes(hosted->model), hosted->batch_invariant ? "true" : "false",
               (unsigned long long)((lb_now_ns() - begun) / LB_MS_NS));
    } else {
        lb_log(LB_LOG_ERROR, "model_failed", "model=%s reason=\"%s\"", entry->name, detail->text);
    }
    return status;
}

static void *load(void *argument) {
    struct lb_repository *r = argument;
    struct lb_detail first = {0}, any = {0};
    size_t n_ready = 0;
    for (size_t i = 0; i < r->n && !atomic_load(&r->stopping); i++) {
        struct lb_detail detail = {0};
        enum lb_status status = open_entry(r, i, &detail);
        n_ready += status == LB_OK;
        if (status != LB_OK) {
            any = any.code == LB_OK ? detail : any;
            first = r->entries[i].required && first.code == LB_OK ? detail : first;
        }
    }
    if (n_ready == 0 && first.code == LB_OK) {
        first = any;
    }
    pthread_mutex_lock(&r->lock);
    r->tried = true;
    pthread_mutex_unlock(&r->lock);
    if (r->finished && !atomic_load(&r->stopping)) {
        r->finished(r->context, first.code, &first);
    }
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

enum lb_status lb_repository_open_all(struct lb_repository *r, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < r->n && status == LB_OK; i++) {
        status = open_entry(r, i, detail);
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
        return lb_fail(detail, LB_E_UNAVAILABLE, "model %s is not available: %s", entry->name, entry->reason);
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
        any |= r->entries[i].state == LB_HOSTED_READY;
    }
    bool ready = r->tried && any;
    pthread_mutex_unlock(&r->lock);
    return ready;
}

json_t *lb_repository_index(struct lb_repository *r, bool only_ready) {
    json_t *list = json_array();
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; list && i < r->n; i++) {
        const struct entry *entry = &r->entries[i];
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

size_t lb_repository_list(struct lb_repository *r, struct lb_hosted **out, size_t max) {
    size_t n = 0;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n && n < max; i++) {
        if (r->entries[i].state == LB_HOSTED_READY) {
            out[n++] = lb_hosted_retain(r->entries[i].hosted);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}
