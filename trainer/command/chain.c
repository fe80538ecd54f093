#include "trainer/command/chain.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/run/journal.h"
#include "trainer/wire/url.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chain {
    struct lb_recipe *const *recipes;
    unsigned n;
    char dirs[LB_MAX_CHAIN][PATH_MAX]; /* their run folders, settled */
};

/* An absolute path without links as far as it is there, and without . and .. behind that. false: too long. */
static bool settle(const char *path, char out[PATH_MAX]) {
    char plain[PATH_MAX] = "", whole[2 * PATH_MAX] = "", real[PATH_MAX];
    if (path[0] != '/' && getcwd(plain, sizeof plain) == NULL) {
        return false;
    }
    if (snprintf(whole, sizeof whole, "%s/%s", plain, path) >= (int)sizeof whole) {
        return false;
    }
    size_t len = 0;
    plain[0] = '\0';
    for (const char *at = whole; *at != '\0';) {
        at += strspn(at, "/");
        size_t n = strcspn(at, "/");
        if (n == 2 && memcmp(at, "..", 2) == 0) {
            char *slash = strrchr(plain, '/');
            len = slash != NULL ? (size_t)(slash - plain) : 0;
        } else if (n > 0 && !(n == 1 && *at == '.')) {
            if (len + n + 2 > sizeof plain) {
                return false;
            }
            plain[len++] = '/';
            memcpy(plain + len, at, n);
            len += n;
        }
        plain[len] = '\0';
        at += n;
    }
    for (size_t end = len; end > 0;) { /* the longest part of it that is there */
        char kept = plain[end];
        plain[end] = '\0';
        bool there = realpath(plain, real) != NULL;
        plain[end] = kept;
        if (there) {
            return snprintf(out, PATH_MAX, "%s%s", real, plain + end) < PATH_MAX;
        }
        while (end > 0 && plain[--end] != '/') {
        }
    }
    snprintf(out, PATH_MAX, "%s", len > 0 ? plain : "/");
    return true;
}

static bool within(const char *path, const char *dir) {
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* One place of recipe i: NULL and other machines' are nobody's business. */
static enum lb_status check_place(const struct chain *c, unsigned i, const char *key, const char *place,
                                  struct lb_detail *detail) {
    const struct lb_recipe *r = c->recipes[i];
    size_t scheme = 0;
    enum lb_scheme kind = place != NULL ? lb_url_scheme(place, &scheme) : LB_SCHEME_NONE;
    char *full = place != NULL ? lb_recipe_resolve(r, place) : NULL, path[PATH_MAX];
    enum lb_status status = LB_OK;
    if (place == NULL || (kind != LB_SCHEME_NONE && kind != LB_SCHEME_LOCAL)) {
        lb_free(full);
        return LB_OK;
    }
    if (full == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    if (!settle(full + scheme, path)) {
        status = lb_recipe_fail(r, detail, LB_E_ARG, key, "%.200s is too long a path", place);
    }
    unsigned maker = c->n;
    for (unsigned j = 0; j < c->n && status == LB_OK && maker == c->n; j++) {
        maker = within(path, c->dirs[j]) ? j : maker;
    }
    if (status == LB_OK && maker < c->n && maker >= i) {
        status = lb_recipe_fail(r, detail, LB_E_ARG, key, "%.200s is what %s makes, which %s", place,
                                c->recipes[maker]->path,
                                maker == i ? "is this recipe itself" : "comes later: name that one first");
    } else if (status == LB_OK && maker == c->n && !lb_file_exists(path) && !lb_is_dir(path)) {
        status =
            lb_recipe_fail(r, detail, LB_E_NOTFOUND, key,
                           "%.200s: no such file or folder, and no recipe before this one makes it", place);
    }
    lb_free(full);
    return status;
}

static enum lb_status check_data(const struct chain *c, unsigned i, const char *list,
                                 const struct lb_recipe_dataset *data, unsigned n, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    char key[64];
    for (unsigned d = 0; d < n && status == LB_OK; d++) {
        snprintf(key, sizeof key, "%s.%u.path", list, d);
        status = check_place(c, i, key, data[d].path, detail);
        snprintf(key, sizeof key, "%s.%u.labels", list, d);
        status = status == LB_OK ? check_place(c, i, key, data[d].labels, detail) : status;
    }
    return status;
}

static enum lb_status check_teachers(const struct chain *c, unsigned i, struct lb_detail *detail) {
    const struct lb_recipe *r = c->recipes[i];
    enum lb_status status = LB_OK;
    char key[64];
    for (unsigned k = 0; k < r->teachers_count && status == LB_OK; k++) {
        const struct lb_recipe_teacher *t = &r->teachers[k];
        const char *const places[] = {t->url, t->head, t->tokenizer, t->token_file};
        static const char *const keys[] = {"url", "head", "tokenizer", "token_file"};
        for (size_t p = 0; p < sizeof keys / sizeof *keys && status == LB_OK; p++) {
            snprintf(key, sizeof key, "teachers.%u.%s", k, keys[p]);
            status = check_place(c, i, key, places[p], detail);
        }
    }
    return status;
}

static enum lb_status check_places(const struct chain *c, unsigned i, struct lb_detail *detail) {
    const struct lb_recipe *r = c->recipes[i];
    enum lb_status status =
        check_place(c, i, r->student.layers_count > 0 ? "student.layers_from" : "student.model",
                    r->student.model, detail);
    status = status == LB_OK ? check_place(c, i, "tokenizer", r->tokenizer, detail) : status;
    status = status == LB_OK ? check_place(c, i, "chat_template", r->chat_template, detail) : status;
    status = status == LB_OK ? check_data(c, i, "datasets", r->datasets, r->datasets_count, detail) : status;
    status = status == LB_OK
                 ? check_data(c, i, "eval_datasets", r->eval_datasets, r->eval_datasets_count, detail)
                 : status;
    return status == LB_OK ? check_teachers(c, i, detail) : status;
}

/* The run folders, each its own and, without resume, empty of runs. */
static enum lb_status check_dirs(struct chain *c, bool resume, struct lb_detail *detail) {
    for (unsigned i = 0; i < c->n; i++) {
        const struct lb_recipe *r = c->recipes[i];
        char *dir = lb_recipe_resolve(r, r->output_dir);
        bool settled = dir != NULL && settle(dir, c->dirs[i]);
        lb_free(dir);
        if (!settled) {
            return lb_recipe_fail(r, detail, LB_E_ARG, "output_dir", "%.200s is too long a path",
                                  r->output_dir);
        }
        for (unsigned j = 0; j < i; j++) {
            if (within(c->dirs[i], c->dirs[j]) || within(c->dirs[j], c->dirs[i])) {
                return lb_recipe_fail(
                    r, detail, LB_E_ARG, "output_dir",
                    "%.200s is in the way of the run folder of %s; each recipe needs its own", r->output_dir,
                    c->recipes[j]->path);
            }
        }
        if (!resume && lb_chain_state(r) != LB_CHAIN_NEW) {
            return lb_recipe_fail(
                r, detail, LB_E_ARG, "output_dir",
                "%.200s already holds a run: go on with all of them with --resume, or give another folder",
                r->output_dir);
        }
    }
    return LB_OK;
}

enum lb_status lb_chain_check(struct lb_recipe *const *recipes, unsigned n, bool resume,
                              struct lb_detail *detail) {
    struct chain *c = lb_calloc(1, sizeof *c);
    if (c == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    c->recipes = recipes;
    c->n = n;
    enum lb_status status = check_dirs(c, resume, detail);
    for (unsigned i = 0; i < n && status == LB_OK; i++) {
        status = check_places(c, i, detail);
    }
    lb_free(c);
    return status;
}

/* Whether the run folder has that file. */
static bool has(const char *dir, const char *name) {
    char *path = lb_path_join(dir, name);
    bool there = path != NULL && lb_file_exists(path);
    lb_free(path);
    return there;
}

enum lb_chain_state lb_chain_state(const struct lb_recipe *recipe) {
    char *dir = lb_recipe_resolve(recipe, recipe->output_dir), own[65], its[65];
    char *path = dir != NULL ? lb_path_join(dir, "recipe.yaml") : NULL;
    struct lb_recipe *there = NULL;
    enum lb_chain_state state = LB_CHAIN_NEW;
    if (path != NULL && (lb_file_exists(path) || has(dir, LB_JOURNAL_FILE))) {
        state = LB_CHAIN_BEGUN;
        /* student/ is written when a run is over, and then the adapter. */
        bool whole =
            has(dir, "student/config.json") && (!recipe->use_peft || has(dir, "adapter/adapter_config.json"));
        if (whole && lb_recipe_load(path, NULL, 0, &there, NULL) == LB_OK &&
            lb_recipe_fingerprint(recipe, own) == LB_OK && lb_recipe_fingerprint(there, its) == LB_OK &&
            strcmp(own, its) == 0) {
            state = LB_CHAIN_DONE;
        }
    }
    lb_recipe_destroy(there);
    lb_free(path);
    lb_free(dir);
    return state;
}
