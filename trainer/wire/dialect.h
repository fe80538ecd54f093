/* Dialects: how a server is asked, and how its answers are read. A table of functions for each; the rest of
 * the trainer knows no other way to a teacher.
 *
 * A new one is trainer/wire/<name>.c, which defines `const struct lb_dialect lb_dialect_<name>`, and a line
 * below. No state: any thread. Nothing in an answer is trusted: what was evaluated, by which model, and
 * names, datatypes and shapes must be what was asked for, so that an answer meant for somebody else is never
 * learnt from.
 *
 * What a server gives is in the lb_teacher_info that info makes: `given`, the outputs that it can answer with
 * (which decide the rungs of the ladder, answer.h), `most_top_k` and `plain_only`. A server that has no
 * fingerprint gets an identity: info asks it a fixed question and makes `fingerprint` of what it says of
 * itself and of the answers.
 */
#ifndef LB_WIRE_DIALECT_H
#define LB_WIRE_DIALECT_H

#include "common/text/ids.h"
#include "trainer/wire/answer.h"
#include "trainer/wire/contact.h"

/* LB_PROTOCOL_..., and the name that recipes write (teachers.K.protocol). The first is the default; of the
 * others those stand first that fewer servers have the mark of. */
#define LB_DIALECTS(X) X(OIP, oip) X(VLLM, vllm) X(SGLANG, sglang) X(LLAMACPP, llamacpp) X(OPENAI, openai)

#define LB_DIALECT_KIND(kind, name) LB_PROTOCOL_##kind,
enum lb_protocol { LB_DIALECTS(LB_DIALECT_KIND) LB_N_PROTOCOLS };
#undef LB_DIALECT_KIND

/* Most positions (after padding) and most answer bytes that one request should ask for. */
#define LB_ASK_TOKENS 8192
#define LB_ASK_ANSWER_BYTES (96u << 20)
/* Requests that one server has at once: while it computes one, the next is there. */
#define LB_ASK_AT_ONCE 2u

/* A question ready to be sent: POST of body to the path LB_PATH_ASK. */
struct lb_asked {
    struct lb_buf body;
    int64_t json_bytes;         /* of the body's front; -1: it is all JSON */
    char digest[LB_SHA256_HEX]; /* of what is asked; "" where the dialect has none */
    int64_t n, longest;         /* sequences, and positions of the longest */
    int64_t rows;               /* positions asked about, of the sequence that has most of them */
};
static inline void lb_asked_finish(struct lb_asked *asked) {
    lb_buf_finish(&asked->body);
}
/* Begins one that is all JSON: no body yet, and the counts of n samples. */
void lb_asked_begin(struct lb_asked *out, const struct lb_sample *const *samples, int64_t n);
/* When its body is written: LB_OK, or the buffer's failure, with which asked is finished. */
LB_NODISCARD enum lb_status lb_asked_end(struct lb_asked *asked, struct lb_detail *detail);

/* Sends it to a path and waits. fresh: no HTTP cache may answer. The caller finishes call (initialised here)
 * in any case; errors begin with teacher and address. */
LB_NODISCARD enum lb_status lb_asked_post(const struct lb_contact *contact, const char *path,
                                          const struct lb_asked *asked, bool fresh, struct lb_call *call,
                                          struct lb_detail *detail);

/* What came back. */
struct lb_ask_reply {
    const void *body;
    size_t len;
    int64_t json_bytes;   /* -1: no header */
    const char *digest;   /* "" when the header is absent */
    const char *metadata; /* vLLM's header of that name; NULL when it is absent */
};

enum lb_path {
    LB_PATH_INFO, /* GET: read by same */
    LB_PATH_ASK,  /* POST: build and split */
    LB_PATH_HEAD, /* GET: read by head_read */
    LB_PATH_TOKENIZER,
    LB_PATH_TOKENIZER_CONFIG, /* GET: what goes with it */
    LB_PATH_VOCAB_MAP         /* PUT: kept ids; of servers that say max_vocab_maps */
};

struct lb_dialect {
    const char *name;
    /* GET of this path has answer 200 at servers that speak it, and at few others: `limbeck probe` takes the
     * first dialect of the list whose mark is there. */
    const char *mark;
    /* The models of a server: calls each(user, name, version, state) for every one; what isn't told is "". */
    enum lb_status (*models)(const struct lb_contact *contact,
                             void (*each)(void *user, const char *name, const char *version,
                                          const char *state),
                             void *user, struct lb_detail *detail);

    /* Asks a server what it says of a model (NULL: of the only one there), reads it into out and appends the
     * bytes to text, from which info_read gives the same again (a cache keeps them). what names their source
     * in errors. */
    enum lb_status (*info)(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                           struct lb_teacher_info *out, struct lb_detail *detail);
    enum lb_status (*info_read)(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                                struct lb_detail *detail);
    /* Whether what GET of LB_PATH_INFO gives now is still said by the teacher that is known; LB_E_MISMATCH
     * when it is another, LB_E_FORMAT when it can't be read. out_id: by which this server is asked for it
     * (model_id); "": by its name. where: teacher and address. */
    enum lb_status (*same)(const struct lb_teacher_info *known, const void *text, size_t len,
                           const char *where, char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail);
    /* The path of a teacher's resource, on the heap (lb_free). spec: what is asked there (LB_PATH_ASK), or
     * with which map (LB_PATH_VOCAB_MAP), else NULL. LB_E_UNSUPPORTED when the dialect has no such thing. */
    enum lb_status (*path)(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                           enum lb_path which, char **out, struct lb_detail *detail);
    /* Appends the ids that the server's own tokenizer makes of a text, with nothing put around it.
     * LB_E_UNSUPPORTED when it runs none. NULL where a tokenizer.json is served, or nothing. */
    enum lb_status (*tokenize)(const struct lb_contact *contact, const struct lb_teacher_info *info,
                               const char *text, struct lb_ids *out, struct lb_detail *detail);
    /* Whether this teacher gives what spec asks for; LB_E_ARG names what is missing. name: the teacher's. */
    enum lb_status (*gives)(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const char *name, struct lb_detail *detail);

    /* Most sequences of one request; NULL: LB_MAX_SEQUENCES. */
    int64_t (*most)(const struct lb_teacher_info *info, const struct lb_ask_spec *spec);
    /* Most requests that one server should have at once; NULL: LB_ASK_AT_ONCE. */
    unsigned (*at_once)(const struct lb_teacher_info *info);
    /* Bytes of the answer about `rows` positions of one of n, beside LB_MAX_JSON_BYTES for all together: an
     * answer that is longer is not received. NULL: those of its tensors (lb_ask_answer_bytes). */
    uint64_t (*answer_bytes)(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t rows,
                             int64_t n);
    /* Builds the request about n samples (pointers; all with the same extra input, or none), each from its
     * first position on (0 unless the info has knows_start), into out (initialised here; lb_asked_finish).
     * scratch is used on the way. */
    enum lb_status (*build)(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *const *samples, int64_t n, uint64_t timeout_us,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail);
    /* Checks the reply against what was asked and copies each sequence's part: the data of answers[i] is
     * allocated in arenas[i]; they pass lb_answer_check. LB_E_MISMATCH with both fingerprints when another
     * model answered; LB_E_FORMAT and LB_E_MISMATCH otherwise name what does not fit. *out_other (may be
     * NULL) is set when fingerprint or compute differ: somebody else answered. */
    enum lb_status (*split)(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_asked *asked, const struct lb_sample *const *samples,
                            const struct lb_ask_reply *reply, struct lb_arena *scratch,
                            struct lb_arena *const *arenas, struct lb_answer *answers, bool *out_other,
                            struct lb_detail *detail);

    /* Both NULL where no heads are served. Whether an output head arrived as it was sent, by its own digest;
     * LB_E_FORMAT when not. */
    enum lb_status (*head_arrived)(const void *bytes, size_t len, const char *what, struct lb_detail *detail);
    /* Reads a downloaded output head; checked against info. lb_teacher_head_finish frees it. */
    enum lb_status (*head_read)(const void *bytes, size_t len, const struct lb_teacher_info *info,
                                const char *what, struct lb_teacher_head *out, struct lb_detail *detail);
};

/* A single question to a server, outside a run's. */
struct lb_exchange {
    const struct lb_contact *contact;
    const struct lb_dialect *dialect;
    const struct lb_teacher_info *info;
    const struct lb_ask_spec *spec;
    const char *name;    /* the teacher's, for errors about numbers */
    uint64_t timeout_us; /* that the server is told */
    bool fresh;          /* no HTTP cache may answer */
};
/* Asks about n samples in one request. The answers' data lies in arena; they are checked as a run's are, also
 * by lb_answer_possible. scratch is used on the way; *out_ns (may be NULL) is how long it took. */
LB_NODISCARD enum lb_status lb_exchange(const struct lb_exchange *exchange,
                                        const struct lb_sample *const *samples, int64_t n,
                                        struct lb_arena *scratch, struct lb_arena *arena,
                                        struct lb_answer *answers, uint64_t *out_ns,
                                        struct lb_detail *detail);

const struct lb_dialect *lb_dialect_get(enum lb_protocol protocol);
/* The same of a teacher whose tensors are named by the recipe (NULL: are not). */
const struct lb_dialect *lb_dialect_of(enum lb_protocol protocol, const struct lb_naming *naming);
/* The one that recipes call so; false when there is none. */
bool lb_protocol_find(const char *name, enum lb_protocol *out);
/* As most, at_once and answer_bytes of the dialect, which may have none of its own. */
int64_t lb_dialect_most(const struct lb_dialect *dialect, const struct lb_teacher_info *info,
                        const struct lb_ask_spec *spec);
unsigned lb_dialect_at_once(const struct lb_dialect *dialect, const struct lb_teacher_info *info);
uint64_t lb_dialect_answer_bytes(const struct lb_dialect *dialect, const struct lb_teacher_info *info,
                                 const struct lb_ask_spec *spec, int64_t rows, int64_t n);

#endif
