#include "trainer/command/chain.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/run/journal.h"
#include "trainer/wire/url.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLACES_BYTES ((size_t)16 << 20)

struct chain {
    struct lb_recipe *const *recipes;
    unsigned n;
    char dirs[LB_MAX_CHAIN][PATH_MAX]; /* their run folders, settled */
};

/* An absolute path without links as far as it is there, and without . and .. behind that: .. behind a link is
 * what the link's target stands in. false: too long. */
static bool settle(const char *path, char out[PATH_MAX]) {
    char plain[PATH_MAX] = "", real[PATH_MAX];
    if (path[0] != '/' && getcwd(plain, sizeof plain) == NULL) {
        return false;
    }
    size_t len = strlen(plain);
    while (*(path += strspn(path, "/")) != '\0') {
        size_t n = strcspn(path, "/");
        if (n == 2 && memcmp(path, "..", 2) == 0) {
            char *slash = strrchr(plain, '/');
            len = slash != NULL ? (size_t)(slash - plain) : 0;
            plain[len] = '\0';
        } else if (n != 1 || *path != '.') {
            if (len + n + 2 > sizeof plain) {
                return false;
            }
            len += (size_t)snprintf(plain + len, sizeof plain - len, "/%.*s", (int)n, path);
            if (realpath(plain, real) != NULL) {
                memcpy(plain, real, sizeof real);
                len = strlen(plain);
            }
        }
        path += n;
    }
    snprintf(out, PATH_MAX, "%s", len > 0 ? plain : "/");
    return true;
}

static bool within(const char *path, const char *dir) {
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* ---- places that a recipe names ---- */

/* NULL, and URLs of other machines, are places too. */
typedef enum lb_status visit_fn(void *context, const struct lb_recipe *r, const char *key, const char *place,
                                struct lb_detail *detail);

static enum lb_status visit_data(const struct lb_recipe *r, const char *list,
                                 const struct lb_recipe_dataset *data, unsigned n, visit_fn *visit,
                                 void *context, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    char key[64];
    for (unsigned d = 0; d < n && status == LB_OK; d++) {
        snprintf(key, sizeof key, "%s.%u.path", list, d);
        status = visit(context, r, key, data[d].path, detail);
        snprintf(key, sizeof key, "%s.%u.labels", list, d);
        status = status == LB_OK ? visit(context, r, key, data[d].labels, detail) : status;
    }
    return status;
}

static enum lb_status visit_teachers(const struct lb_recipe *r, visit_fn *visit, void *context,
                                     struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    char key[64];
    for (unsigned k = 0; k < r->teachers_count && status == LB_OK; k++) {
        const struct lb_recipe_teacher *t = &r->teachers[k];
        const char *const places[] = {t->url, t->head, t->tokenizer, t->token_file};
        static const char *const keys[] = {"url", "head", "tokenizer", "token_file"};
        for (size_t p = 0; p < sizeof keys / sizeof *keys && status == LB_OK; p++) {
            snprintf(key, sizeof key, "teachers.%u.%s", k, keys[p]);
            status = visit(context, r, key, places[p], detail);
        }
    }
    return status;
}

/* All that a student is made of. */
static enum lb_status visit_places(const struct lb_recipe *r, visit_fn *visit, void *context,
                                   struct lb_detail *detail) {
    enum lb_status status =
        visit(context, r, r->student.layers_count > 0 ? "student.layers_from" : "student.model",
              r->student.model, detail);
    status = status == LB_OK ? visit(context, r, "tokenizer", r->tokenizer, detail) : status;
    status = status == LB_OK ? visit(context, r, "chat_template", r->chat_template, detail) : status;
    status = status == LB_OK
                 ? visit_data(r, "datasets", r->datasets, r->datasets_count, visit, context, detail)
                 : status;
    return status == LB_OK ? visit_teachers(r, visit, context, detail) : status;
}

/* Where place is on this machine, settled, into path; false: it is on another, or is none. */
static enum lb_status find_place(const struct lb_recipe *r, const char *key, const char *place,
                                 char path[PATH_MAX], bool *out_here, struct lb_detail *detail) {
    size_t scheme = 0;
    enum lb_scheme kind = place != NULL ? lb_url_scheme(place, &scheme) : LB_SCHEME_NONE;
    *out_here = place != NULL && (kind == LB_SCHEME_NONE || kind == LB_SCHEME_LOCAL);
    char *full = *out_here ? lb_recipe_resolve(r, place) : NULL;
    enum lb_status status = LB_OK;
    if (*out_here && full == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory");
    } else if (*out_here && !settle(full + scheme, path)) {
        status = lb_recipe_fail(r, detail, LB_E_ARG, key, "%.200s is too long a path", place);
    }
    lb_free(full);
    return status;
}

/* A place of the recipe that is checked. */
struct checking {
    const struct chain *chain;
    unsigned i;
};

static enum lb_status check_place(void *context, const struct lb_recipe *r, const char *key,
                                  const char *place, struct lb_detail *detail) {
    const struct checking *at = context;
    const struct chain *c = at->chain;
    char path[PATH_MAX];
    bool here = false;
    enum lb_status status = find_place(r, key, place, path, &here, detail);
    if (status != LB_OK || !here) {
        return status;
    }
    unsigned maker = c->n;
    for (unsigned j = 0; j < c->n && maker == c->n; j++) {
        maker = within(path, c->dirs[j]) ? j : maker;
    }
    if (maker < c->n && maker >= at->i) {
        return lb_recipe_fail(r, detail, LB_E_ARG, key, "%.200s is what %s makes, which %s", place,
                              c->recipes[maker]->path,
                              maker == at->i ? "is this recipe itself" : "comes later: name that one first");
    }
    if (maker == c->n && !lb_file_exists(path) && !lb_is_dir(path)) {
        return lb_recipe_fail(r, detail, LB_E_NOTFOUND, key,
                              "%.200s: no such file or folder, and no recipe before this one makes it",
                              place);
    }
    return LB_OK;
}

static enum lb_status check_places(const struct chain *c, unsigned i, struct lb_detail *detail) {
    const struct lb_recipe *r = c->recipes[i];
    struct checking at = {c, i};
    enum lb_status status = visit_places(r, check_place, &at, detail);
    return status == LB_OK ? visit_data(r, "eval_datasets", r->eval_datasets, r->eval_datasets_count,
                                        check_place, &at, detail)
                           : status;
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
        if (lb_file_exists(c->dirs[i]) && !lb_is_dir(c->dirs[i])) {
            return lb_recipe_fail(r, detail, LB_E_ARG, "output_dir", "%.200s is a file, not a folder",
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

/* ---- what is done ---- */

/* Whether the run folder has that file. */
static bool has(const char *dir, const char *name) {
    char *path = lb_path_join(dir, name);
    bool there = path != NULL && lb_file_exists(path);
    lb_free(path);
    return there;
}

/* Whether path is there and was changed behind that time. */
static bool is_newer(const char *path, const struct timespec *than) {
    struct stat about;
    return stat(path, &about) == 0 &&
           (about.st_mtim.tv_sec > than->tv_sec ||
            (about.st_mtim.tv_sec == than->tv_sec && about.st_mtim.tv_nsec > than->tv_nsec));
}

/* A file; of a folder itself and all that stands in it. */
static bool any_newer(const char *path, const struct timespec *than) {
    DIR *dir = opendir(path);
    bool newer = is_newer(path, than);
    for (const struct dirent *entry; dir != NULL && !newer && (entry = readdir(dir)) != NULL;) {
        char *inside = entry->d_name[0] != '.' ? lb_path_join(path, entry->d_name) : NULL;
        newer = inside != NULL && is_newer(inside, than);
        lb_free(inside);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return newer;
}

/* What a recipe names, one a line, and whether any of it was changed since the run began. */
struct named {
    struct lb_buf places;
    struct timespec began;
    bool newer;
};

static enum lb_status name_place(void *context, const struct lb_recipe *r, const char *key, const char *place,
                                 struct lb_detail *detail) {
    struct named *named = context;
    char path[PATH_MAX] = "";
    bool here = false;
    enum lb_status status = find_place(r, key, place, path, &here, detail);
    if (status == LB_OK) {
        named->newer = named->newer || (here && any_newer(path, &named->began));
        lb_buf_printf(&named->places, "%s %s\n", key, here ? path : place != NULL ? place : "");
    }
    return status;
}

/* Whether the run of `there`, which began when its recipe.yaml was written, had the same files, folders and
 * teachers as they are now. */
static bool same_places(const struct lb_recipe *recipe, const struct lb_recipe *there,
                        const struct timespec *began) {
    struct named now = {.began = *began}, then = {.began = *began};
    lb_buf_init(&now.places, PLACES_BYTES);
    lb_buf_init(&then.places, PLACES_BYTES);
    bool same = visit_places(recipe, name_place, &now, NULL) == LB_OK &&
                visit_places(there, name_place, &then, NULL) == LB_OK &&
                lb_buf_status(&now.places) == LB_OK && lb_buf_status(&then.places) == LB_OK && !now.newer &&
                now.places.len == then.places.len &&
                memcmp(now.places.data, then.places.data, now.places.len) == 0;
    lb_buf_finish(&now.places);
    lb_buf_finish(&then.places);
    return same;
}

/* Whether a run by that recipe is over: student/ (and then the adapter) is written when it is, behind
 * recipe.yaml, and what it is made of is what it was. */
static bool is_done(const struct lb_recipe *recipe, const char *dir, const char *path) {
    char *student = lb_path_join(dir, "student/config.json"), own[65], its[65];
    struct lb_recipe *there = NULL;
    struct stat began, made;
    bool done = student != NULL && stat(path, &began) == 0 && stat(student, &made) == 0 &&
                !is_newer(path, &made.st_mtim) &&
                (!recipe->use_peft || has(dir, "adapter/adapter_config.json")) &&
                lb_recipe_load(path, NULL, 0, &there, NULL) == LB_OK &&
                lb_recipe_fingerprint(recipe, own) == LB_OK && lb_recipe_fingerprint(there, its) == LB_OK &&
                strcmp(own, its) == 0 && same_places(recipe, there, &began.st_mtim);
    lb_recipe_destroy(there);
    lb_free(student);
    return done;
}

enum lb_chain_state lb_chain_state(const struct lb_recipe *recipe) {
    char *dir = lb_recipe_resolve(recipe, recipe->output_dir);
    char *path = dir != NULL ? lb_path_join(dir, "recipe.yaml") : NULL;
    enum lb_chain_state state = LB_CHAIN_NEW;
    if (path != NULL && (lb_file_exists(path) || has(dir, LB_JOURNAL_FILE))) {
        state = is_done(recipe, dir, path) ? LB_CHAIN_DONE : LB_CHAIN_BEGUN;
    }
    lb_free(path);
    lb_free(dir);
    return state;
}
