/* GET and PUT .../vocab_maps/{digest}: whether a vocabulary map is here, and here it is. */
#include "common/base/json.h"
#include "proto/oip.h"
#include "server/api/reply.h"
#include "server/api/table.h"

/* The model, of a path that names a map as it must be; false, and answered, where there is none. */
static bool begin(struct lb_exchange *x, const char *digest) {
    if (!lb_reply_find_model(x)) {
        return false;
    }
    if (!lb_is_vocab_map(digest)) {
        lb_reply_error(
            x, 400,
            "\"%.80s\" is no digest of a vocabulary map: SHA-256 of its bytes, 64 hex digits in lower case",
            digest);
        return false;
    }
    return true;
}

static void tell(struct lb_exchange *x, const char *digest, int64_t n) {
    lb_reply_json(x, 200, json_pack("{s:s,s:I}", "vocab_map", digest, "kept", (json_int_t)n));
    lb_reply_header(x, "Cache-Control", "no-store"); /* it may go at any time */
}

void lb_handle_vocab_map(struct lb_server *server, struct lb_exchange *x,
                         const struct lb_route_match *match) {
    (void)server;
    if (!begin(x, match->digest)) {
        return;
    }
    struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    struct lb_kept_ids *map = lb_vocab_maps_get(&hosted->maps, match->digest);
    if (map) {
        tell(x, match->digest, map->kept.n);
    } else {
        lb_reply_error(x, 404, "vocab_map %s is not here, or not any more: PUT its ids to this path",
                       match->digest);
    }
    lb_kept_ids_release(map);
}

void lb_handle_vocab_map_put(struct lb_server *server, struct lb_exchange *x,
                             const struct lb_route_match *match) {
    (void)server;
    struct lb_detail detail = {0};
    if (!begin(x, match->digest)) {
        return;
    }
    struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    if (!lb_hosted_scores(hosted)) {
        lb_reply_error(x, 400, "model %s makes no distributions over tokens, so it has no vocabulary maps",
                       hosted->name);
        return;
    }
    enum lb_status status = lb_vocab_maps_put(&hosted->maps, match->digest, x->body.data, x->body.len,
                                              lb_hosted_vocab(hosted), &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return;
    }
    tell(x, match->digest, (int64_t)(x->body.len / sizeof(int32_t)));
}
