/* lb_vocab_maps_put: two bytes that say how many ids a model has, and a map as a client sends it: ids that
 * rise within the vocabulary, or a reason. What is taken picks the very numbers of a row, in whatever pieces
 * it comes. */
#include "server/models/vocab_maps.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

/* The numbers of a row of v, of which each is its own id, in pieces. */
static void pick(const struct lb_kept *kept, int64_t v, int64_t piece) {
    float *z = malloc((size_t)v * sizeof *z), *picked = malloc((size_t)kept->n * sizeof *picked);
    int64_t n = 0;
    require(z != NULL && picked != NULL);
    for (int64_t i = 0; i < v; i++) {
        z[i] = (float)i;
    }
    for (int64_t id = 0; id < v; id += piece) {
        int64_t m, place = lb_kept_gather(kept, z + id, v - id < piece ? v - id : piece, id, picked + n, &m);
        require(place == n && m >= 0 && n + m <= kept->n);
        n += m;
    }
    require(n == kept->n);
    for (int64_t i = 0; i < n; i++) {
        require(picked[i] == (float)kept->ids[i]);
    }
    free(z);
    free(picked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) {
        return 0;
    }
    int64_t v = 1 + data[0] + 256 * (int64_t)data[1];
    uint8_t hash[LB_SHA256_BYTES];
    char digest[LB_SHA256_HEX];
    struct lb_vocab_maps maps;
    struct lb_detail detail = {0};
    data += 2;
    size -= 2;
    lb_sha256(data, size, hash);
    lb_hex(hash, sizeof hash, digest);
    lb_vocab_maps_init(&maps);
    enum lb_status status = lb_vocab_maps_put(&maps, digest, data, size, v, &detail);
    require(status == LB_OK || (status == LB_E_ARG && detail.text[0] != '\0'));
    struct lb_kept_ids *map = lb_vocab_maps_get(&maps, digest);
    require((map != NULL) == (status == LB_OK));
    if (map != NULL) {
        require(map->kept.n >= 1 && map->kept.n <= v && (size_t)map->kept.n * 4 == size);
        require(memcmp(map->ids, data, size) == 0);
        for (int64_t i = 0; i < map->kept.n; i++) {
            require(map->ids[i] >= 0 && map->ids[i] < v && (i == 0 || map->ids[i] > map->ids[i - 1]));
        }
        pick(&map->kept, v, v);
        pick(&map->kept, v, 7);
    }
    lb_kept_ids_release(map);
    digest[5] = digest[5] == '0' ? '1' : '0';
    require(lb_vocab_maps_put(&maps, digest, data, size, v, NULL) == LB_E_ARG);
    lb_vocab_maps_finish(&maps);
    return 0;
}
