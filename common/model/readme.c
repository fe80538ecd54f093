#include "common/model/readme.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/sha256.h"

#include <string.h>

#define MAX_BYTES ((size_t)16 << 20)
#define SEAL "<!-- limbeck: "
#define SEAL_END " -->\n"
#define SEAL_BYTES (sizeof SEAL - 1 + LB_SHA256_HEX - 1 + sizeof SEAL_END - 1)

static void seal_of(const char *text, size_t len, char out[SEAL_BYTES + 1]) {
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256(text, len, digest);
    memcpy(out, SEAL, sizeof SEAL - 1);
    lb_hex(digest, sizeof digest, out + sizeof SEAL - 1);
    memcpy(out + sizeof SEAL - 1 + LB_SHA256_HEX - 1, SEAL_END, sizeof SEAL_END);
}

enum lb_status lb_readme_seal(struct lb_buf *text) {
    char seal[SEAL_BYTES + 1];
    if (lb_buf_status(text) == LB_OK) {
        seal_of(text->data, text->len, seal);
        lb_buf_append_str(text, seal);
    }
    return lb_buf_status(text);
}

bool lb_readme_is_sealed(const char *text, size_t len) {
    char seal[SEAL_BYTES + 1];
    if (len <= SEAL_BYTES) {
        return false;
    }
    seal_of(text, len - SEAL_BYTES, seal);
    return memcmp(text + len - SEAL_BYTES, seal, SEAL_BYTES) == 0;
}

enum lb_status lb_readme_check(const char *dir, struct lb_detail *detail) {
    struct lb_buf text;
    char *path = lb_path_join(dir, LB_README);
    enum lb_status status = path != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    lb_buf_init(&text, MAX_BYTES);
    if (status == LB_OK && lb_file_exists(path)) {
        status = lb_file_read(path, &text, detail);
        if (status == LB_OK && !lb_readme_is_sealed(text.data != NULL ? text.data : "", text.len)) {
            status = lb_fail(detail, LB_E_ARG,
                             "%s was written or changed by somebody else: it is not replaced; choose another "
                             "place, or move it away",
                             path);
        }
    }
    lb_buf_finish(&text);
    lb_free(path);
    return status;
}
