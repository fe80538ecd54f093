/* Token shards: files of ids that somebody else's tokenizer run wrote. Three layouts, told apart by the file:
 *   Megatron   NAME.bin of ids, NAME.idx beside it: "MMIDIDX\0\0", u64 version 1, u8 datatype, u64 sequences,
 *              u64 documents, i32 lengths [sequences], i64 byte offsets [sequences], i64 documents' ends
 *   llm.c      256 i32: magic 20240520, version 1 (u16 ids), or 20240801, version 7 (u32); then their number
 *   nanoGPT    u16 ids, nothing else
 * Ids are a stream, cut into rows that overlap by one, as texts are; documents are ended within it by whoever
 * wrote it. Rows are read when they are wanted, so that memory does not depend on how long a shard is. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LLMC_HEADER 1024
#define LLMC_GPT2 20240520
#define LLMC_LLAMA3 20240801
#define INDEX_MAGIC "MMIDIDX\0\0"
#define INDEX_HEADER 34 /* magic, version, datatype, sequences, documents */
#define CHUNK 65536     /* ids that are looked at together */

static uint32_t le16(const uint8_t *b) {
    return (uint32_t)b[0] | (uint32_t)b[1] << 8;
}

static uint32_t le32(const uint8_t *b) {
    return le16(b) | le16(b + 2) << 16;
}

static uint64_t le64(const uint8_t *b) {
    return le32(b) | (uint64_t)le32(b + 4) << 32;
}

static size_t width_of(enum lb_shard_ids kind) {
    return kind == LB_SHARD_U16 ? 2 : 4;
}

/* len bytes from offset on. */
static enum lb_status read_at(int fd, const char *path, int64_t offset, void *to, size_t len,
                              struct lb_detail *detail) {
    for (size_t done = 0; done < len;) {
        ssize_t got = pread(fd, (char *)to + done, len - done, (off_t)(offset + (int64_t)done));
        if (got < 0 && errno != EINTR) {
            return lb_fail_errno(detail, LB_E_IO, errno, "%s", path);
        }
        if (got == 0) {
            return lb_fail(detail, LB_E_IO, "%s: ends before byte %lld; is somebody writing it?", path,
                           (long long)(offset + (int64_t)len));
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return LB_OK;
}

/* n ids from number `first` on. */
static enum lb_status read_ids(const struct lb_shard *shard, int64_t first, int64_t n, int32_t *out,
                               struct lb_detail *detail) {
    size_t width = width_of(shard->kind);
    uint8_t *bytes = (uint8_t *)out + (size_t)n * (sizeof *out - width); /* widened from the front */
    enum lb_status status = read_at(shard->fd, shard->path, shard->begin + first * (int64_t)width, bytes,
                                    (size_t)n * width, detail);
    for (int64_t i = 0; status == LB_OK && i < n; i++) {
        out[i] = width == 2 ? (int32_t)le16(bytes + 2 * i) : (int32_t)le32(bytes + 4 * i);
    }
    return status;
}

/* ---- layouts ---- */

/* The index beside a Megatron shard: the datatype of its ids, and whether they are one stream. */
static enum lb_status read_index(struct lb_shard *shard, const char *index, int64_t bytes,
                                 struct lb_detail *detail) {
    struct lb_map map = {0};
    enum lb_status status = lb_map_open(&map, index, detail);
    if (status != LB_OK) {
        return status;
    }
    const uint8_t *at = map.data;
    if (map.len < INDEX_HEADER || memcmp(at, INDEX_MAGIC, 9) != 0 || le64(at + 9) != 1) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: is no index of Megatron's (MMIDIDX, version 1)", index);
        goto out;
    }
    uint8_t datatype = at[17];
    uint64_t sequences = le64(at + 18), documents = le64(at + 26);
    if (datatype != 8 && datatype != 4) {
        status = lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s: ids of datatype %u; 8 (uint16) and 4 (int32) are read", index, datatype);
        goto out;
    }
    shard->kind = datatype == 8 ? LB_SHARD_U16 : LB_SHARD_U32;
    size_t width = width_of(shard->kind);
    if (sequences > (map.len - INDEX_HEADER) / 12 || documents > map.len / 8 ||
        map.len < INDEX_HEADER + 12 * sequences + 8 * documents) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: ends too early; is the file whole?", index);
        goto out;
    }
    uint64_t sum = 0;
    for (uint64_t i = 0; i < sequences; i++) {
        if (le64(at + INDEX_HEADER + 4 * sequences + 8 * i) != sum) {
            status = lb_fail(detail, LB_E_UNSUPPORTED,
                             "%s: sequence %llu does not stand behind the one before; write them in order",
                             index, (unsigned long long)i);
            goto out;
        }
        sum += (uint64_t)le32(at + INDEX_HEADER + 4 * i) * width;
    }
    if (sum != (uint64_t)bytes) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: tells of %llu bytes, %s has %lld", index,
                         (unsigned long long)sum, shard->path, (long long)bytes);
        goto out;
    }
    shard->tokens = bytes / (int64_t)width;
out:
    lb_map_close(&map);
    return status;
}

static enum lb_status read_plain(struct lb_shard *shard, int64_t bytes, struct lb_detail *detail) {
    uint8_t header[12] = {0};
    enum lb_status status = bytes >= (int64_t)sizeof header
                                ? read_at(shard->fd, shard->path, 0, header, sizeof header, detail)
                                : LB_OK;
    if (status != LB_OK) {
        return status;
    }
    uint32_t magic = le32(header), version = le32(header + 4);
    shard->kind = magic == LLMC_LLAMA3 ? LB_SHARD_U32 : LB_SHARD_U16;
    int64_t width = (int64_t)width_of(shard->kind);
    if (magic != LLMC_GPT2 && magic != LLMC_LLAMA3) {
        shard->tokens = bytes / 2;
        return bytes % 2 == 0
                   ? LB_OK
                   : lb_fail(detail, LB_E_FORMAT, "%s: %lld bytes are no whole number of uint16 ids",
                             shard->path, (long long)bytes);
    }
    if (version != (magic == LLMC_GPT2 ? 1 : 7)) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: llm.c's layout of magic %u and version %u is not known",
                       shard->path, magic, version);
    }
    if (bytes < LLMC_HEADER) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: ends within llm.c's header, at byte %lld; is the file whole?", shard->path,
                       (long long)bytes);
    }
    shard->begin = LLMC_HEADER;
    shard->tokens = le32(header + 8);
    return LLMC_HEADER + shard->tokens * width == bytes
               ? LB_OK
               : lb_fail(detail, LB_E_FORMAT, "%s: its header tells of %lld ids, its %lld bytes hold %lld",
                         shard->path, (long long)shard->tokens, (long long)bytes,
                         (long long)((bytes - LLMC_HEADER) / width));
}

static enum lb_status open_shard(struct lb_shard *shard, const char *path, struct lb_detail *detail) {
    size_t len = strlen(path);
    struct stat about;
    char *index = lb_strdup(path);
    shard->path = lb_strdup(path);
    enum lb_status status = LB_OK;
    if (index == NULL || shard->path == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
        goto out;
    }
    /* Not blocking: opening a pipe by mistake must not wait for a writer. */
    shard->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (shard->fd < 0 || fstat(shard->fd, &about) != 0) {
        status =
            lb_fail_errno(detail, errno == ENOENT ? LB_E_NOTFOUND : LB_E_IO, errno, "cannot open %s", path);
        goto out;
    }
    if (!S_ISREG(about.st_mode)) {
        status = lb_fail(detail, LB_E_IO, "%s is %s, not a regular file", path,
                         S_ISDIR(about.st_mode) ? "a folder" : "a special file");
        goto out;
    }
    shard->size = (int64_t)about.st_size;
    shard->written = about.st_mtim;
    if (lb_ends_with(path, ".bin")) {
        memcpy(index + len - 3, "idx", 3);
    }
    status = lb_ends_with(path, ".bin") && lb_file_exists(index)
                 ? read_index(shard, index, shard->size, detail)
                 : read_plain(shard, shard->size, detail);
out:
    lb_free(index);
    return status;
}

/* Each id that a row reads, once: whether the vocabulary has it, the fingerprint, the bytes of text. */
static enum lb_status look_through(struct lb_dataset *data, const struct lb_text_source *source,
                                   const struct lb_shard *shard, int64_t used, struct lb_detail *detail) {
    int32_t *ids = lb_malloc_array(CHUNK, sizeof *ids);
    enum lb_status status =
        ids != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", shard->path);
    int64_t bytes = 0;
    for (int64_t at = 0; status == LB_OK && at < used; at += CHUNK) {
        int64_t n = used - at < CHUNK ? used - at : CHUNK;
        status =
            source->stop != NULL && *source->stop != 0 ? LB_E_CANCELLED : read_ids(shard, at, n, ids, detail);
        for (int64_t i = 0; status == LB_OK && i < n; i++) {
            if (ids[i] < 0 || ids[i] >= source->vocab_size) {
                status = lb_fail(
                    detail, LB_E_MISMATCH,
                    "%s: id %lld is %u, and the tokenizer has %d; is it the one that wrote the shard?",
                    shard->path, (long long)(at + i), (unsigned)ids[i], source->vocab_size);
                break;
            }
            bytes += at + i > 0 ? source->token_bytes[ids[i]] : 0;
        }
        if (status == LB_OK) {
            lb_sha256_update(data->hash, ids, (size_t)n * sizeof *ids);
        }
    }
    lb_free(ids);
    data->bytes += bytes;
    if (shard->tag >= 0) {
        data->tag_bytes[shard->tag] += bytes;
    }
    return status;
}

enum lb_status lb_dataset_add_shard(struct lb_dataset *data, const struct lb_text_source *source,
                                    const struct lb_recipe_dataset *entry, const char *path,
                                    int64_t max_length, bool keep_short, struct lb_detail *detail) {
    if (source->teacher_prompt != NULL) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: token shards have no %s for teachers to read in place of a prompt; records do",
                       path, source->teacher_prompt);
    }
    struct lb_shard *shards = lb_realloc_array(data->shards, (size_t)data->n_shards + 1, sizeof *shards);
    data->shards = shards != NULL ? shards : data->shards;
    if (shards == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    }
    enum lb_status status = lb_dataset_hold_any(data, detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_shard *shard = &shards[data->n_shards];
    *shard = (struct lb_shard){.fd = -1, .max_length = max_length, .vocab_size = source->vocab_size};
    data->n_shards++; /* lb_dataset_destroy closes it */
    shard->tag = lb_dataset_take_tag(data, entry->tag);
    status = shard->tag == -2 ? lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path)
                              : open_shard(shard, path, detail);
    if (status != LB_OK) {
        return status;
    }
    int64_t labels = shard->tokens - 1;
    labels = entry->max_tokens > 0 && labels > entry->max_tokens ? entry->max_tokens : labels;
    if (labels < 1) {
        return lb_fail(detail, LB_E_ARG, "%s: holds no text: %lld ids", path, (long long)shard->tokens);
    }
    shard->rows = labels / max_length + (keep_short && labels % max_length != 0);
    shard->labels = keep_short ? labels : shard->rows * max_length;
    shard->prompt = source->prompts ? entry->prompt_length : 0;
    data->shard_rows += shard->rows;
    return look_through(data, source, shard, shard->labels + 1, detail);
}

void lb_shards_close(struct lb_dataset *data) {
    for (int i = 0; i < data->n_shards; i++) {
        if (data->shards[i].fd >= 0) {
            close(data->shards[i].fd);
        }
        lb_free(data->shards[i].path);
    }
    lb_free(data->shards);
}

/* Behind a read: the file is what it was when it was looked through, and so are its ids [n]. */
static enum lb_status check_same(const struct lb_shard *shard, const int32_t *ids, int64_t n,
                                 struct lb_detail *detail) {
    struct stat now;
    bool same = fstat(shard->fd, &now) == 0 && now.st_size == shard->size &&
                now.st_mtim.tv_sec == shard->written.tv_sec && now.st_mtim.tv_nsec == shard->written.tv_nsec;
    for (int64_t t = 0; same && t < n; t++) { /* whatever clocks say, nobody reads beyond the vocabulary */
        same = ids[t] >= 0 && ids[t] < shard->vocab_size;
    }
    return same
               ? LB_OK
               : lb_fail(detail, LB_E_IO,
                         "%s: was written to while it was in use; bring back what it was, and put other data "
                         "in other files",
                         shard->path);
}

enum lb_status lb_shard_row(const struct lb_dataset *data, int64_t i, struct lb_sample *out,
                            struct lb_detail *detail) {
    const struct lb_shard *shard = data->shards;
    for (; i >= shard->rows; shard++) {
        i -= shard->rows;
    }
    int64_t first = i * shard->max_length, left = shard->labels - first;
    int64_t n = left < shard->max_length ? left : shard->max_length;
    struct lb_held_row *held = lb_dataset_next_held(data, n + 1, detail);
    if (held == NULL) {
        return LB_E_NOMEM;
    }
    int32_t *ids = held->ids;
    enum lb_status status = read_ids(shard, first, n + 1, ids, detail);
    status = status == LB_OK ? check_same(shard, ids, n + 1, detail) : status;
    if (status == LB_OK) {
        *out = (struct lb_sample){
            .ids = ids, .n = n, .label = -1, .tag = shard->tag, .within = i > 0, .prompt = shard->prompt};
    }
    return status;
}
