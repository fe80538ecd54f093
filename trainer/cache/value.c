#include "trainer/cache/value.h"

#include "common/base/bytes.h"
#include "common/base/mem.h"
#include "trainer/wire/possible.h"

#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#define MAGIC 0x4143424cu /* "LBCA" */
#define VERSION 2
/* What a key is the digest of begins so: another number when what is hashed, or how, changes. */
#define KEY_FORMAT "limbeck answer 1"
#define FLAG_ZSTD 1u
#define ZSTD_LEVEL 1

static void put_header(struct lb_buf *buf, const struct lb_cache_header *h) {
    lb_put_u32(buf, h->magic);
    lb_put_u16(buf, h->version);
    lb_put_u16(buf, h->flags);
    lb_put_u64(buf, h->raw_bytes);
    lb_put_u64(buf, h->tokens);
    lb_put_u64(buf, h->payload_bytes);
    lb_put_u64(buf, h->checksum);
}

static uint64_t checksum_of(const void *name, size_t name_len, const struct lb_cache_header *h,
                            const void *payload) {
    const uint64_t fields[] = {(uint64_t)h->version << 16 | h->flags, h->raw_bytes, h->tokens,
                               h->payload_bytes, name_len};
    uint64_t sum = XXH64(fields, sizeof fields, 0);
    sum = XXH64(name, name_len, sum);
    return XXH64(payload, h->payload_bytes, sum);
}

enum lb_status lb_cache_value_make(const void *name, size_t name_len, const void *raw, size_t len,
                                   uint64_t tokens, struct lb_buf *out) {
    size_t bound = ZSTD_compressBound(len);
    void *packed = lb_malloc_array(bound, 1);
    if (!packed) {
        return LB_E_NOMEM;
    }
    struct lb_cache_header h = {
        .magic = MAGIC, .version = VERSION, .raw_bytes = len, .tokens = tokens, .payload_bytes = len};
    size_t got = ZSTD_compress(packed, bound, raw, len, ZSTD_LEVEL);
    if (!ZSTD_isError(got) && got < len) {
        h.flags = FLAG_ZSTD;
        h.payload_bytes = got;
    }
    const void *payload = h.flags ? packed : raw;
    h.checksum = checksum_of(name, name_len, &h, payload);
    put_header(out, &h);
    lb_buf_append(out, payload, h.payload_bytes);
    lb_free(packed);
    return lb_buf_status(out);
}

const char *lb_cache_value_check(const void *name, size_t name_len, const void *value, size_t len,
                                 struct lb_cache_header *h, const void **payload) {
    struct lb_reader r;
    lb_reader_init(&r, value, len);
    h->magic = lb_read_u32(&r);
    h->version = lb_read_u16(&r);
    h->flags = lb_read_u16(&r);
    h->raw_bytes = lb_read_u64(&r);
    h->tokens = lb_read_u64(&r);
    h->payload_bytes = lb_read_u64(&r);
    h->checksum = lb_read_u64(&r);
    if (r.failed || h->magic != MAGIC) {
        return "is no value of a Limbeck cache";
    }
    if (h->version != VERSION) {
        return "was written by another version of Limbeck";
    }
    if (h->payload_bytes != lb_reader_left(&r) || h->raw_bytes > LB_MAX_RESPONSE_BYTES) {
        return "has a wrong length";
    }
    *payload = (const uint8_t *)value + r.pos;
    return checksum_of(name, name_len, h, *payload) == h->checksum ? NULL : "fails its checksum";
}

bool lb_cache_value_inflate(const struct lb_cache_header *h, const void *payload, void *raw) {
    if (h->flags & FLAG_ZSTD) {
        size_t got = ZSTD_decompress(raw, h->raw_bytes, payload, h->payload_bytes);
        return !ZSTD_isError(got) && got == h->raw_bytes;
    }
    if (h->payload_bytes != h->raw_bytes) {
        return false;
    }
    memcpy(raw, payload, h->raw_bytes);
    return true;
}

enum lb_status lb_cache_answer_pack(const struct lb_answer *answer, struct lb_buf *out) {
    lb_put_u32(out, (uint32_t)answer->n_tensors);
    for (size_t i = 0; i < answer->n_tensors; i++) {
        const struct lb_wire_tensor *t = &answer->tensors[i];
        lb_put_u16(out, (uint16_t)strlen(t->name));
        lb_buf_append_str(out, t->name);
        lb_put_u8(out, (uint8_t)t->datatype);
        lb_put_u8(out, (uint8_t)t->n_dims);
        for (int d = 0; d < t->n_dims; d++) {
            lb_put_u64(out, (uint64_t)t->dim[d]);
        }
        lb_put_u64(out, t->bytes);
    }
    for (size_t i = 0; i < answer->n_tensors; i++) {
        lb_buf_append(out, answer->tensors[i].data, answer->tensors[i].bytes);
    }
    return lb_buf_status(out);
}

static enum lb_status unpack_tensor(struct lb_reader *r, struct lb_arena *arena, struct lb_wire_tensor *t) {
    size_t name_len = lb_read_u16(r);
    const char *name = lb_read_span(r, name_len);
    if (!name || name_len >= LB_MAX_NAME) {
        return LB_E_FORMAT;
    }
    char *copy = lb_arena_alloc(arena, name_len + 1);
    if (!copy) {
        return LB_E_NOMEM;
    }
    memcpy(copy, name, name_len);
    copy[name_len] = 0;
    *t = (struct lb_wire_tensor){.name = copy, .datatype = (enum lb_datatype)lb_read_u8(r), .binary = true};
    t->n_dims = lb_read_u8(r);
    size_t bytes = t->datatype <= LB_DT_BYTES ? lb_datatype_bytes(t->datatype) : 0;
    if (t->n_dims > LB_MAX_WIRE_DIMS || bytes == 0) {
        return LB_E_FORMAT;
    }
    for (int d = 0; d < t->n_dims; d++) {
        t->dim[d] = (int64_t)lb_read_u64(r);
        if (t->dim[d] < 1 || !lb_mul_size(bytes, (size_t)t->dim[d], &bytes)) {
            return LB_E_FORMAT;
        }
    }
    t->bytes = (size_t)lb_read_u64(r);
    return !r->failed && t->bytes == bytes ? LB_OK : LB_E_FORMAT;
}

/* LB_E_FORMAT for bytes that are no packed answer. */
static enum lb_status unpack_answer(const void *raw, size_t len, struct lb_arena *arena,
                                    struct lb_answer *out) {
    struct lb_reader r;
    lb_reader_init(&r, raw, len);
    size_t n = lb_read_u32(&r);
    if (n > LB_MAX_ASKED) {
        return LB_E_FORMAT;
    }
    for (size_t i = 0; i < n; i++) {
        enum lb_status status = unpack_tensor(&r, arena, &out->tensors[i]);
        if (status != LB_OK) {
            return status;
        }
    }
    for (size_t i = 0; i < n; i++) {
        const void *data = lb_read_span(&r, out->tensors[i].bytes);
        if (!data) {
            return LB_E_FORMAT;
        }
        void *aligned = lb_arena_alloc(arena, out->tensors[i].bytes);
        if (!aligned) {
            return LB_E_NOMEM;
        }
        memcpy(aligned, data, out->tensors[i].bytes);
        out->tensors[i].data = aligned;
    }
    out->n_tensors = n;
    return lb_reader_left(&r) == 0 && lb_answer_name(out) == LB_OK ? LB_OK : LB_E_FORMAT;
}

enum lb_status lb_cache_answer_inflate(const struct lb_cache_header *h, const void *payload,
                                       struct lb_arena *arena, struct lb_answer *out) {
    void *raw = lb_malloc_array(h->raw_bytes ? h->raw_bytes : 1, 1);
    if (!raw) {
        return LB_E_NOMEM;
    }
    enum lb_status status = LB_E_FORMAT;
    if (lb_cache_value_inflate(h, payload, raw)) {
        status = unpack_answer(raw, h->raw_bytes, arena, out);
    }
    lb_free(raw);
    return status;
}

bool lb_cache_value_good(const void *key, size_t key_len, const void *value, size_t len) {
    struct lb_cache_header h;
    const void *payload;
    struct lb_answer answer;
    struct lb_arena arena;
    if (key_len != LB_SHA256_BYTES || lb_cache_value_check(key, key_len, value, len, &h, &payload) != NULL) {
        return false;
    }
    lb_arena_init(&arena, (size_t)h.raw_bytes + (1u << 20));
    enum lb_status status = lb_cache_answer_inflate(&h, payload, &arena, &answer);
    status = status == LB_OK ? lb_answer_possible(&answer, 0, "cache", NULL) : status;
    lb_arena_finish(&arena);
    return status != LB_E_FORMAT;
}

/* Attentions are [H, n, n], sentence embeddings one row whatever n, the rest [n, ...]. */
static int64_t rows_of(const struct lb_wire_tensor *t, enum lb_output_kind kind) {
    if (lb_output_get(kind)->width == LB_WIDE_SENTENCE) {
        return 1;
    }
    return t->n_dims == 3 ? t->dim[1] : t->n_dims > 0 ? t->dim[0] : 0;
}

uint64_t lb_cache_answer_tokens(const struct lb_answer *answer) {
    int64_t most = 0;
    for (size_t i = 0; i < answer->n_tensors; i++) {
        int64_t rows = rows_of(&answer->tensors[i], answer->what[i].kind);
        most = rows > most ? rows : most;
    }
    return (uint64_t)most;
}

enum lb_status lb_cache_key(const char *identity, const struct lb_sample *sample, int64_t n_features,
                            const struct lb_ask_spec *spec, uint8_t out[LB_SHA256_BYTES]) {
    struct lb_ask_spec asked;
    lb_ask_normalise(spec, &asked);
    uint64_t temperature;
    memcpy(&temperature, &asked.temperature, sizeof temperature);
    struct lb_sha256 *hash = lb_sha256_create();
    if (!hash) {
        memset(out, 0, LB_SHA256_BYTES);
        return LB_E_NOMEM;
    }
    lb_sha256_update(hash, KEY_FORMAT, strlen(KEY_FORMAT));
    lb_sha256_update(hash, identity, strlen(identity) + 1);
    lb_sha256_u64(hash, sample->features ? 0 : (uint64_t)sample->n);
    lb_sha256_u64(hash, sample->features ? (uint64_t)n_features : 0);
    if (sample->features) {
        lb_sha256_update(hash, sample->features, (size_t)n_features * sizeof(float));
    } else {
        lb_sha256_update(hash, sample->ids, (size_t)sample->n * sizeof(int32_t));
    }
    lb_sha256_u64(hash, asked.n_outputs);
    for (size_t j = 0; j < asked.n_outputs; j++) {
        char name[LB_MAX_NAME];
        lb_output_format(asked.outputs[j].kind, asked.outputs[j].layer, name);
        lb_sha256_update(hash, name, strlen(name) + 1);
        lb_sha256_u32(hash, (uint32_t)asked.outputs[j].datatype);
    }
    lb_sha256_u64(hash, (uint64_t)asked.top_k);
    lb_sha256_u64(hash, temperature);
    if (sample->extra) { /* others' keys stay what they were */
        lb_sha256_update(hash, sample->extra->name, strlen(sample->extra->name) + 1);
        lb_sha256_u64(hash, (uint64_t)sample->extra->width);
        lb_sha256_update(hash, sample->extra->values,
                         (size_t)(sample->n * sample->extra->width) * sizeof *sample->extra->values);
    }
    if (sample->first > 0) {
        lb_sha256_update(hash, LB_IN_START, sizeof LB_IN_START);
        lb_sha256_u64(hash, (uint64_t)sample->first);
    }
    if (asked.sample_count > 0) {
        memcpy(&temperature, &asked.sample_temperature, sizeof temperature);
        lb_sha256_update(hash, "samples", sizeof "samples");
        lb_sha256_u64(hash, (uint64_t)asked.sample_count);
        lb_sha256_u64(hash, asked.seed);
        lb_sha256_u64(hash, temperature);
    }
    if (asked.vocab_map[0] != '\0') {
        lb_sha256_update(hash, "vocab_map", sizeof "vocab_map");
        lb_sha256_update(hash, asked.vocab_map, strlen(asked.vocab_map) + 1);
    }
    lb_sha256_final(hash, out);
    return LB_OK;
}

enum lb_status lb_cache_answer_value(const uint8_t key[LB_SHA256_BYTES], const struct lb_answer *answer,
                                     struct lb_buf *out, uint64_t *out_raw_bytes) {
    struct lb_buf raw;
    lb_buf_init(&raw, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = lb_cache_answer_pack(answer, &raw);
    if (status == LB_OK) {
        status =
            lb_cache_value_make(key, LB_SHA256_BYTES, raw.data, raw.len, lb_cache_answer_tokens(answer), out);
    }
    *out_raw_bytes = raw.len;
    lb_buf_finish(&raw);
    return status;
}
