/* limbeck: the command line. Finds the sub-command and runs it; everything else is in <name>.c beside it. */
#include "common/nn/gemm.h"
#include "trainer/command/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_THREADS 4096

static const struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv, volatile sig_atomic_t *stop);
} commands[] = {
    {"train", "train a student, alone or from teachers", lb_cmd_train},
    {"eval", "how well a model predicts texts or images", lb_cmd_eval},
    {"generate", "let a model go on with a text", lb_cmd_generate},
    {"embed", "vectors of texts by a sentence encoder", lb_cmd_embed},
    {"influence", "which blocks of a model change least, for a student of the others", lb_cmd_influence},
    {"prune", "leave out the neurons and heads of a model that do least, for a narrower student",
     lb_cmd_prune},
    {"export", "write a model for transformers or llama.cpp", lb_cmd_export},
    {"cache", "look into a cache of teachers' answers", lb_cmd_cache},
    {"probe", "what teachers serve, and whether replicas agree", lb_cmd_probe},
    {"tokenize", "show a text as token ids", lb_cmd_tokenize},
    {"tokenizer", "make a smaller tokenizer of a model's", lb_cmd_tokenizer},
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

const char *argp_program_version = "limbeck " LB_VERSION;

static volatile sig_atomic_t stop;

/* The first signal asks for a clean end, the second takes none. */
static void on_signal(int number) {
    (void)number;
    if (stop) {
        _exit(LB_EXIT_FAILED);
    }
    stop = 1;
    static const char text[] = "\nlimbeck: stopping cleanly; once more ends at once\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
}

/* What a scheduler sends some time before it ends a job (SLURM: --signal=USR1). */
static void on_save(int number) {
    (void)number;
    *lb_save_now() = 1;
}

/* Files are mapped: where one is cut short under us, reading it is SIGBUS. Whoever did it is told before the
 * process ends of it. */
static void on_cut_file(int number) {
    static const char text[] = "\nlimbeck: a file was cut short, or could not be read, while it was in use; "
                               "replace files by renaming others to their place\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    signal(number, SIG_DFL); /* the same read again ends the process */
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction before;
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) { /* nohup stays as it was */
        sigaction(SIGHUP, &action, NULL);
    }
    action.sa_handler = on_save;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags = 0;
    action.sa_handler = on_cut_file;
    sigaction(SIGBUS, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL); /* a peer that hangs up is an error of write, not the end */
}

/* Appended to --help: the commands. */
static char *filter(int key, const char *text, void *input) {
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC) {
        return (char *)text;
    }
    char *out = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&out, &len);
    if (f == NULL) {
        return (char *)text;
    }
    fputs("Commands:\n", f);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
    }
    fputs("\nlimbeck COMMAND --help tells more about one.", f);
    fclose(f);
    return out; /* argp frees it */
}

struct arguments {
    int threads;
    const struct command *command;
    int first; /* index of the command's name in argv */
};

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 't':
        a->threads = (int)lb_option_int(state, "--threads", text, 0, MAX_THREADS);
        return 0;
    case ARGP_KEY_ARG:
        for (size_t i = 0; i < N_COMMANDS; i++) {
            if (strcmp(text, commands[i].name) == 0) {
                a->command = &commands[i];
                a->first = state->next - 1;
                state->next = state->argc; /* the rest is the command's */
                return 0;
            }
        }
        argp_error(state, "there is no command \"%s\"", text);
        return EINVAL;
    case ARGP_KEY_NO_ARGS:
        argp_usage(state);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What was printed may be lost only now (a full disk): then the command has failed. */
static int flush_output(int status) {
    bool lost = ferror(stdout) != 0;
    errno = 0;
    if (fclose(stdout) != 0 || lost) {
        fprintf(stderr, "limbeck: not all of the output could be written%s%s\n", errno != 0 ? ": " : "",
                errno != 0 ? strerror(errno) : "");
        return status == 0 ? LB_EXIT_FAILED : status;
    }
    return status;
}

int main(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"threads", 't', "N", 0, "Threads that compute (default: as many as processors)", 0}, {0}};
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .args_doc = "COMMAND [ARGUMENT...]",
                                     .doc = "Distils large models into small ones, over the network.\v",
                                     .help_filter = filter};
    struct arguments a = {0};
    argp_err_exit_status = LB_EXIT_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
    lb_threads_option_set(a.threads);
    lb_gemm_setup(a.threads, argv); /* may start the program again, so before anything that lasts */
    catch_signals();
    char name[64];
    snprintf(name, sizeof name, "limbeck %s", a.command->name);
    argv[a.first] = name;
    return flush_output(a.command->run(argc - a.first, argv + a.first, &stop));
}
