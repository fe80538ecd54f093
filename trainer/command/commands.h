/* The sub-commands of limbeck, one file each (<name>.c), and what several of them need.
 *
 * A command parses its own arguments with argp (argv[0] is "limbeck NAME"), prints results on standard output
 * and errors on standard error, and returns the exit status: 0 done, 1 failed or stopped, 2 wrong usage.
 * *stop is set by SIGINT and SIGTERM.
 */
#ifndef LB_COMMAND_COMMANDS_H
#define LB_COMMAND_COMMANDS_H

#include "common/base/json.h"
#include "common/base/status.h"
#include "common/model/model.h"
#include "common/text/tokenizer.h"
#include "trainer/data/dataset.h"
#include "trainer/recipe/recipe.h"
#include "trainer/wire/dialect.h"

#include <argp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define LB_EXIT_FAILED 1
#define LB_EXIT_USAGE 2
#define LB_EXIT_SAVED 3 /* interrupted, and everything is saved */

int lb_cmd_train(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_eval(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_generate(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_export(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_probe(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_cache(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_embed(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_influence(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_prune(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_tokenize(int argc, char **argv, volatile sig_atomic_t *stop);
int lb_cmd_tokenizer(int argc, char **argv, volatile sig_atomic_t *stop);

/* The option 'k' of commands that take MODEL and read or write text: lb_opened_init's tokenizer. */
#define LB_TOKENIZER_OPTION                                                                                  \
    { "tokenizer", 'k', "PATH", 0, "tokenizer.json, its folder or a .gguf file (default: the model's)", 0 }

/* The place of a word given as an option among names (NULL ends them); wrong usage when it is none of them.
 */
int lb_option_name(const struct argp_state *state, const char *option, const char *text,
                   const char *const *names);
/* Appends "a, b, c" to text (of size bytes, a string already). */
void lb_list_names(char *text, size_t size, const char *const *names);
/* Standard input to its end. */
LB_NODISCARD enum lb_status lb_read_stdin(struct lb_buf *out, struct lb_detail *detail);
/* One line on standard output (JSON_... flags); lets go of value. */
void lb_print_json(json_t *value, size_t flags);

/* What limbeck --threads said before the command's name; 0: nothing. main sets it. */
void lb_threads_option_set(int threads);
int lb_threads_option(void);
/* Set by SIGUSR1, for which main listens: a run saves and goes on. */
volatile sig_atomic_t *lb_save_now(void);

/* "limbeck: <text>" on standard error; returns LB_EXIT_FAILED. */
int lb_command_failed(const struct lb_detail *detail, enum lb_status status);

/* A number given as an option; ends the process with wrong usage (argp_error) when it is none or out of
 * range. */
int64_t lb_option_int(const struct argp_state *state, const char *option, const char *text, int64_t min,
                      int64_t max);
/* A name of --protocol. */
enum lb_protocol lb_option_protocol(const struct argp_state *state, const char *text);
/* Tensors of servers of the Open Inference Protocol that are no limbeckd (teachers.N.names and extra_inputs
 * of a recipe), as options say them. */
struct lb_tensor_options {
    struct lb_naming naming; /* logits NULL: none */
    struct lb_named_value extra[LB_NAMED_INPUTS];
};
#define LB_NAME_HELP                                                                                         \
    "Of a server that is no limbeckd: its tensor for input_ids, logits, lengths or attention_mask, as "      \
    "teachers.N.names of a recipe (may be given several times)"
#define LB_EXTRA_INPUT_HELP                                                                                  \
    "With --name: an input that is the same in every request, as teachers.N.extra_inputs"
/* --name KEY=TENSOR; --extra-input TENSOR=VALUE, whose text is cut; at the end, whether they go together and
 * with what --protocol says (NULL: nothing). */
void lb_option_tensor(const struct argp_state *state, const char *text, struct lb_tensor_options *out);
void lb_option_extra_input(const struct argp_state *state, char *text, struct lb_tensor_options *out);
void lb_option_tensors_end(const struct argp_state *state, const struct lb_tensor_options *options,
                           const struct lb_dialect *dialect);
/* Within the options; NULL: there are none. */
const struct lb_naming *lb_tensors_naming(struct lb_tensor_options *options);
double lb_option_number(const struct argp_state *state, const char *option, const char *text, double min,
                        double max);

/* Whether it is the URL[#NAME] of a hosted model; out has what that says then, and text is cut. */
bool lb_option_hosted(char *text, struct lb_recipe_teacher *out);

/* DATA arguments of commands that read data, and how. */
#define LB_MAX_DATA_FILES 64
struct lb_data_options {
    const char *path[LB_MAX_DATA_FILES];
    unsigned n;
    const char *field; /* they are JSON lines whose texts are this member; NULL: what their names say */
    int64_t max_length, max_tokens; /* of a row, of each file; 0: nobody says */
};
/* One more; at the end, whether there is any. */
void lb_option_data(const struct argp_state *state, const char *text, struct lb_data_options *out);
void lb_option_data_end(const struct argp_state *state, const struct lb_data_options *options);
/* What kind of data are in out->path, into its type and field. */
LB_NODISCARD enum lb_status lb_data_type(const struct lb_data_options *options, struct lb_recipe_dataset *out,
                                         struct lb_detail *detail);
/* The options 'l', 't' and 'f' of commands that read texts; whether key is one of them, which is in out then.
 */
#define LB_TEXTS_OPTIONS                                                                                     \
    {"max-length", 'l', "N", 0, "Positions of a row (default: what the model takes, at most 1024)", 0},      \
        {"max-tokens", 't', "N", 0, "Only the first N tokens of each file", 0}, {                            \
        "field", 'f', "KEY", 0, "DATA are JSON lines: the member that holds the text (default: text)", 0     \
    }
bool lb_option_texts(int key, const char *text, const struct argp_state *state, struct lb_data_options *out);
/* Opens them as the data of frame, which outlives them. labels: classes of the texts, 0: none. */
LB_NODISCARD enum lb_status lb_data_open(const struct lb_data_options *options, const struct lb_recipe *frame,
                                         const struct lb_tokenizer *tokenizer, int64_t labels,
                                         const volatile sig_atomic_t *stop, struct lb_dataset **out,
                                         struct lb_detail *detail);

#define LB_DEFAULT_LENGTH 1024
/* Positions of a row where nobody says how many: what the model takes, at most LB_DEFAULT_LENGTH. */
int64_t lb_default_length(const struct lb_model *model);
/* max_length of the recipe that a run folder was made with, 0 when argument is no run folder. */
int64_t lb_run_max_length(const char *argument);

/* A MODEL argument and its tokenizer: a Hugging Face folder, a .gguf file, or a run folder (whose exported
 * student stands in student/). */
struct lb_opened {
    char *path;
    struct lb_model *model;
    struct lb_tokenizer *tokenizer; /* NULL for classifiers */
};
/* Without the tokenizer. */
LB_NODISCARD enum lb_status lb_opened_model(struct lb_opened *opened, const char *argument,
                                            struct lb_detail *detail);
/* tokenizer: a path, or NULL: the one beside or within the model. LB_E_NOTFOUND tells what a folder lacks. */
LB_NODISCARD enum lb_status lb_opened_init(struct lb_opened *opened, const char *argument,
                                           const char *tokenizer, struct lb_detail *detail);
void lb_opened_finish(struct lb_opened *opened);
/* Opens both (lb_opened_init), lets work do what arguments say, and tells what fails; the exit status. */
int lb_with_opened(const char *argument, const char *tokenizer,
                   enum lb_status (*work)(const void *arguments, const struct lb_opened *opened,
                                          volatile sig_atomic_t *stop, struct lb_detail *detail),
                   const void *arguments, volatile sig_atomic_t *stop);
/* Only the tokenizer of a MODEL argument, or of a tokenizer.json. */
LB_NODISCARD enum lb_status lb_tokenizer_argument(const char *argument, struct lb_tokenizer **out,
                                                  struct lb_detail *detail);

#endif
