/* limbeck train RECIPE...: one training run, or several one after the other. */
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/command/chain.h"
#include "trainer/command/commands.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/journal.h"
#include "trainer/run/loop.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_OVERRIDES 256

struct arguments {
    const char *recipes[LB_MAX_CHAIN];
    unsigned n;
    const char *overrides[MAX_OVERRIDES];
    size_t n_overrides;
    char *output_dir; /* "output_dir=DIR" on the heap; NULL: the recipe's */
    bool resume, check, help_recipe;
};

enum { KEY_HELP_RECIPE = 256, KEY_CHECK };

static const struct argp_option options[] = {
    {"set", 's', "KEY=VALUE", 0,
     "overrides a key of the recipe (student.hidden_size=64, teachers.0.url=...); may be repeated", 0},
    {"output-dir", 'o', "DIR", 0, "the run folder, instead of the recipe's output_dir", 0},
    {"resume", 'r', NULL, 0, "go on from the last checkpoint in the run folder", 0},
    {"check", KEY_CHECK, NULL, 0,
     "read and check the recipe, print it with all its values, and train nothing", 0},
    {"help-recipe", KEY_HELP_RECIPE, NULL, 0, "list every key of a recipe with its default", 0},
    {NULL, 0, NULL, 0, NULL, 0}};

/* "output_dir=DIR": paths in a recipe are relative to its folder, paths on the command line to where one
 * stands. */
static char *output_dir(const char *dir) {
    char here[PATH_MAX] = "";
    bool relative = dir[0] != '/' && getcwd(here, sizeof here) != NULL;
    size_t size = strlen(here) + strlen(dir) + sizeof "output_dir=/";
    char *out = lb_malloc_array(size, 1);
    if (out != NULL) {
        snprintf(out, size, "output_dir=%s%s%s", here, relative ? "/" : "", dir);
    }
    return out;
}

static bool sets_output_dir(const struct arguments *a) {
    for (size_t i = 0; i < a->n_overrides; i++) {
        if (strncmp(a->overrides[i], "output_dir=", strlen("output_dir=")) == 0) {
            return true;
        }
    }
    return false;
}

/* RUN/recipe.yaml, the copy that a run keeps, means that run wherever the folder is now: what output_dir says
 * in it may be where it was. NULL for other recipes. */
static char *own_folder(const char *recipe) {
    const char *slash = strrchr(recipe, '/');
    char *dir = slash != NULL ? lb_strdup(recipe) : lb_strdup(".");
    char *found = NULL;
    if (dir != NULL && strcmp(slash != NULL ? slash + 1 : recipe, "recipe.yaml") == 0) {
        if (slash != NULL) {
            dir[slash == recipe ? 1 : slash - recipe] = '\0';
        }
        char *metrics = lb_path_join(dir, LB_JOURNAL_FILE);
        found = metrics != NULL && lb_file_exists(metrics) ? output_dir(dir) : NULL;
        lb_free(metrics);
    }
    lb_free(dir);
    return found;
}

static error_t parse(int key, char *value, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 's':
        if (strchr(value, '=') == NULL) {
            argp_error(state, "--set %s: give it as KEY=VALUE", value);
        }
        if (a->n_overrides + 1 >= MAX_OVERRIDES) {
            argp_error(state, "at most %d --set", MAX_OVERRIDES - 1);
        }
        a->overrides[a->n_overrides++] = value;
        return 0;
    case 'o': {
        lb_free(a->output_dir);
        a->output_dir = output_dir(value);
        return a->output_dir != NULL ? 0 : ENOMEM;
    }
    case 'r':
        a->resume = true;
        return 0;
    case KEY_CHECK:
        a->check = true;
        return 0;
    case KEY_HELP_RECIPE:
        a->help_recipe = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->n == LB_MAX_CHAIN) {
            argp_error(state, "at most %d recipes", LB_MAX_CHAIN);
        }
        a->recipes[a->n++] = value;
        return 0;
    case ARGP_KEY_END:
        if (a->n == 0 && !a->help_recipe) {
            argp_error(state, "give a recipe");
        }
        if (a->n > 1 && (a->output_dir != NULL || sets_output_dir(a))) {
            argp_error(state, "--output-dir is one run's; each of several recipes has its own");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Reads a recipe, or tells all that is wrong with it, a line each, and returns NULL. */
static struct lb_recipe *load_recipe(struct arguments *a, const char *path) {
    struct lb_detail detail = {0};
    struct lb_recipe *recipe = NULL;
    struct lb_buf lines;
    size_t n = a->n_overrides;
    char *own = a->output_dir == NULL && !sets_output_dir(a) ? own_folder(path) : NULL;
    if (own != NULL || a->output_dir != NULL) {
        a->overrides[n++] = own != NULL ? own : a->output_dir;
    }
    lb_buf_init(&lines, 1 << 20);
    enum lb_status status = lb_recipe_load_all(path, a->overrides, n, &lines, &recipe, &detail);
    size_t told = 0;
    while (told < lines.len) {
        size_t len = strcspn(lines.data + told, "\n");
        bool whose = a->n > 1 && strncmp(lines.data + told, "--set ", strlen("--set ")) == 0;
        fprintf(stderr, "limbeck: %s%s%.*s\n", whose ? path : "", whose ? ": " : "", (int)len,
                lines.data + told);
        told += len + 1;
    }
    if (status != LB_OK && told == 0) {
        (void)lb_command_failed(&detail, status);
    }
    lb_buf_finish(&lines);
    lb_free(own);
    return recipe;
}

/* All of them, so that whatever is wrong with any is told; false: something is. */
static bool load_recipes(struct arguments *a, struct lb_recipe *recipes[LB_MAX_CHAIN]) {
    bool sound = true;
    for (unsigned i = 0; i < a->n; i++) {
        recipes[i] = load_recipe(a, a->recipes[i]);
        sound = sound && recipes[i] != NULL;
        if (recipes[i] != NULL && recipes[i]->notes != NULL) {
            fputs(recipes[i]->notes, stderr);
        }
    }
    return sound;
}

/* The table of trainer/RECIPE.md. */
static int print_keys(void) {
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    enum lb_status status = lb_recipe_help(&buf);
    if (status == LB_OK) {
        fwrite(buf.data, 1, buf.len, stdout);
    }
    lb_buf_finish(&buf);
    struct lb_detail detail = {0};
    return status == LB_OK ? 0 : lb_command_failed(&detail, status);
}

/* A recipe as it is resolved, which read again is the same recipe. */
static int print_recipe(const struct lb_recipe *recipe) {
    struct lb_detail detail = {0};
    char *text = NULL;
    size_t len = 0;
    enum lb_status status = lb_recipe_dump(recipe, &text, &len, &detail);
    if (status == LB_OK) {
        fwrite(text, 1, len, stdout);
    }
    lb_free(text);
    return status == LB_OK ? 0 : lb_command_failed(&detail, status);
}

/* One after the other; those that are done already are passed over until one is not, since what comes behind
 * that one may read what it makes anew (a run goes on with the same teachers only). */
static enum lb_status train_all(const struct arguments *a, struct lb_recipe *const *recipes,
                                volatile sig_atomic_t *stop, bool *resumable, struct lb_detail *detail) {
    bool anew = false;
    enum lb_status status = a->n > 1 ? lb_chain_check(recipes, a->n, a->resume, detail) : LB_OK;
    for (unsigned i = 0; i < a->n && status == LB_OK; i++) {
        struct lb_train_options how = {.resume = a->resume,
                                       .threads = lb_threads_option(),
                                       .stop = stop,
                                       .save_now = lb_save_now(),
                                       .resumable = resumable};
        if (a->n > 1) {
            enum lb_chain_state state = lb_chain_state(recipes[i]);
            bool done = state == LB_CHAIN_DONE && !anew;
            lb_log(LB_LOG_INFO, done ? "done_already" : "recipe", "recipe=\"%s\" number=%u of=%u",
                   a->recipes[i], i + 1, a->n);
            if (done) {
                continue;
            }
            how.resume = state != LB_CHAIN_NEW;
        }
        anew = true;
        status = lb_train(recipes[i], &how, detail);
        if (a->n > 1) {
            if (status != LB_OK && strncmp(detail->text, recipes[i]->path, strlen(recipes[i]->path)) != 0) {
                lb_detail_prefix(detail, "%s", a->recipes[i]);
            }
            *resumable = *resumable || i > 0; /* what earlier ones did is there */
        }
    }
    return status;
}

int lb_cmd_train(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp argp = {
        options,
        parse,
        "RECIPE.yaml...",
        "Trains a student as the recipe says, alone or from teachers. Several recipes are trained by one "
        "after "
        "the other, where later ones may read what earlier ones make (teachers.N.url: local:RUN/student). "
        "YAML of TRL's, DistillKit's and "
        "Axolotl's "
        "distillation is read too: what became of each key is told.\v"
        "The run folder gets recipe.yaml, metrics.jsonl, checkpoint-STEP/ and, at the end, student/: a "
        "Hugging Face folder. Ctrl-C finishes the step and saves, with exit status 3; --resume goes on to "
        "the same bits. "
        "SIGUSR1 saves and goes on.",
        NULL,
        NULL,
        NULL};
    struct arguments a = {0};
    struct lb_recipe *recipes[LB_MAX_CHAIN] = {NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &a) != 0) {
        return LB_EXIT_USAGE;
    }
    if (a.help_recipe) {
        lb_free(a.output_dir);
        return print_keys();
    }
    struct lb_detail detail = {0};
    bool resumable = false, read = load_recipes(&a, recipes);
    enum lb_status status = LB_OK;
    int printed = 0;
    for (unsigned i = 0; read && a.check && i < a.n && printed == 0; i++) {
        fputs(i > 0 ? "---\n" : "", stdout);
        printed = print_recipe(recipes[i]);
    }
    if (read && !a.check) {
        status = train_all(&a, recipes, stop, &resumable, &detail);
    } else if (read && printed == 0 && a.n > 1) {
        status = lb_chain_check(recipes, a.n, true, &detail);
    }
    for (unsigned i = 0; i < a.n; i++) {
        lb_recipe_destroy(recipes[i]);
    }
    lb_free(a.output_dir);
    if (!read || printed != 0) {
        return LB_EXIT_FAILED;
    }
    if (status == LB_E_CANCELLED) {
        fprintf(stderr, resumable
                            ? "limbeck: stopped; what was done is saved: go on with the same command and "
                              "--resume\n"
                            : "limbeck: stopped before there was anything to save\n");
        return resumable ? LB_EXIT_SAVED : LB_EXIT_FAILED;
    }
    return status == LB_OK ? 0 : lb_command_failed(&detail, status);
}
