#include "server/http/auth.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "proto/limits.h"
#include "server/http/secret.h"

#include <pthread.h>
#include <string.h>
#include <strings.h>

/* What the files say, and what each token has used. */
struct table {
    struct lb_tokens tokens;
    struct lb_quota **quotas; /* of each */
};

struct lb_auth {
    pthread_mutex_t lock; /* guards the table */
    struct table table;
};

static void finish(struct table *table) {
    for (size_t i = 0; table->quotas && i < table->tokens.n; i++) {
        lb_quota_release(table->quotas[i]);
    }
    lb_free(table->quotas);
    lb_tokens_finish(&table->tokens);
}

struct lb_auth *lb_auth_create(void) {
    struct lb_auth *auth = lb_calloc(1, sizeof *auth);
    if (auth) {
        pthread_mutex_init(&auth->lock, NULL);
    }
    return auth;
}

void lb_auth_destroy(struct lb_auth *auth) {
    if (auth) {
        finish(&auth->table);
        pthread_mutex_destroy(&auth->lock);
        lb_free(auth);
    }
}

/* ---- reading ---- */

/* Nothing without a name. */
static enum lb_status read_file(struct lb_tokens *tokens, const char *name, unsigned scopes,
                                const char *unnamed, struct lb_detail *detail) {
    struct lb_buf text;
    if (!name) {
        return LB_OK;
    }
    lb_buf_init(&text, LB_MAX_TOKEN_FILE_BYTES);
    char *path = lb_credential_path(name);
    enum lb_status status = path ? lb_secret_read("token file", path, &text, detail)
                                 : lb_fail(detail, LB_E_NOMEM, "token file %s: out of memory", name);
    if (status == LB_OK) {
        status = lb_tokens_parse(tokens, path, text.data ? text.data : "", text.len, scopes, unnamed, detail);
    }
    lb_secret_finish(&text);
    lb_free(path);
    return status;
}

/* What this token's name has used so far, or nothing yet; a reference. */
static struct lb_quota *quota_of(const struct table *before, const char *name) {
    for (size_t i = 0; i < before->tokens.n; i++) {
        if (strcmp(before->tokens.list[i].name, name) == 0) {
            return lb_quota_retain(before->quotas[i]);
        }
    }
    return lb_quota_create();
}

/* The lock is held: nobody else changes the table before. */
static enum lb_status find_quotas(struct table *table, const struct table *before, struct lb_detail *detail) {
    table->quotas = lb_calloc(table->tokens.n + 1, sizeof *table->quotas);
    bool made = table->quotas != NULL;
    for (size_t i = 0; made && i < table->tokens.n; i++) {
        table->quotas[i] = quota_of(before, table->tokens.list[i].name);
        made = table->quotas[i] != NULL;
    }
    return made ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory while reading tokens");
}

enum lb_status lb_auth_load(struct lb_auth *auth, const char *token_file, const char *admin_file,
                            struct lb_detail *detail) {
    struct table table = {0};
    uint64_t now = lb_now_ns();
    enum lb_status status =
        read_file(&table.tokens, token_file, LB_SCOPE_ASK | LB_SCOPE_METRICS, "token", detail);
    if (status == LB_OK) {
        status = read_file(&table.tokens, admin_file, LB_SCOPE_ALL, "admin-token", detail);
    }
    pthread_mutex_lock(&auth->lock);
    if (status == LB_OK) {
        status = find_quotas(&table, &auth->table, detail);
    }
    if (status == LB_OK) {
        struct table before = auth->table;
        auth->table = table;
        table = before;
    }
    for (size_t i = 0; status == LB_OK && i < auth->table.tokens.n; i++) {
        const struct lb_token *token = &auth->table.tokens.list[i];
        lb_quota_limit(auth->table.quotas[i], token->tokens_per_minute, token->concurrent, now);
    }
    pthread_mutex_unlock(&auth->lock);
    finish(&table);
    return status;
}

size_t lb_auth_count(struct lb_auth *auth) {
    pthread_mutex_lock(&auth->lock);
    size_t n = auth->table.tokens.n;
    pthread_mutex_unlock(&auth->lock);
    return n;
}

/* ---- finding ---- */

/* The one with this digest, -1: none. */
static int find_digest(const struct lb_tokens *tokens, const uint8_t digest[LB_SHA256_BYTES]) {
    int found = -1;
    for (size_t i = 0; i < tokens->n; i++) {
        volatile unsigned difference = 0; /* volatile: no shortcut out of the loop */
        for (size_t j = 0; j < LB_SHA256_BYTES; j++) {
            difference |= (unsigned)(digest[j] ^ tokens->list[i].digest[j]);
        }
        found = difference == 0 ? (int)i : found;
    }
    return found;
}

bool lb_auth_find(struct lb_auth *auth, const char *authorization, struct lb_bearer *out) {
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0) {
        return false;
    }
    const char *token = authorization + 7;
    token += strspn(token, " ");
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256(token, strlen(token), digest);
    pthread_mutex_lock(&auth->lock);
    int i = find_digest(&auth->table.tokens, digest);
    if (i >= 0) {
        const struct lb_token *known = &auth->table.tokens.list[i];
        memcpy(out->name, known->name, sizeof out->name);
        out->scopes = known->scopes;
        out->quota = lb_quota_retain(auth->table.quotas[i]);
    }
    pthread_mutex_unlock(&auth->lock);
    return i >= 0;
}
