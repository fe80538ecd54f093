/* lb_tokens_parse: whatever stands in a file of tokens is refused with one line that names file and line, or
 * understood: names and digests are all different, limits are within theirs. */
#include "server/http/tokens.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lb_tokens tokens = {0};
    struct lb_detail detail = {0};
    enum lb_status status =
        lb_tokens_parse(&tokens, "FILE", (const char *)data, size, LB_SCOPE_ASK, "token", &detail);
    require((status == LB_OK) == (detail.text[0] == '\0'));
    require(status != LB_OK ? strncmp(detail.text, "token file FILE", 15) == 0 : tokens.n > 0);
    for (size_t i = 0; i < tokens.n; i++) {
        const struct lb_token *t = &tokens.list[i];
        require(t->name[0] != '\0' && strlen(t->name) < LB_TOKEN_NAME);
        require(t->scopes != 0 && (t->scopes & ~(unsigned)LB_SCOPE_ALL) == 0);
        require(t->tokens_per_minute >= 0 && t->concurrent >= 0 && t->concurrent <= 1000000);
        for (size_t j = 0; j < i; j++) {
            require(strcmp(t->name, tokens.list[j].name) != 0);
            require(memcmp(t->digest, tokens.list[j].digest, sizeof t->digest) != 0);
        }
    }
    lb_tokens_finish(&tokens);
    return 0;
}
