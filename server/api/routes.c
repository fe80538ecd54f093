#include "server/api/routes.h"

#include "server/http/head.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Copies the segment at *path (up to '/' or the end); false when it is empty or too long. */
static bool take_segment(const char **path, const char *end, char out[LB_MAX_NAME]) {
    const char *stop = memchr(*path, '/', (size_t)(end - *path));
    size_t len = (size_t)((stop ? stop : end) - *path);
    if (len == 0 || len >= LB_MAX_NAME) {
        return false;
    }
    memcpy(out, *path, len);
    out[len] = '\0';
    lb_segment_decode(out);
    *path += len;
    return true;
}

/* Matches pattern [p, pe) without brackets against the front of *path. */
static bool match_plain(const char *p, const char *pe, const char **path, const char *end,
                        struct lb_route_match *out) {
    while (p < pe) {
        if (*p == '{') {
            const char *close = memchr(p, '}', (size_t)(pe - p));
            char *into = strncmp(p, "{model}", 7) == 0    ? out->model
                         : strncmp(p, "{digest}", 8) == 0 ? out->digest
                                                          : out->version;
            if (!close || !take_segment(path, end, into)) {
                return false;
            }
            p = close + 1;
        } else if (*path < end && **path == *p) {
            p++;
            (*path)++;
        } else {
            return false;
        }
    }
    return true;
}

static bool match(const char *pattern, const char *path, const char *end, struct lb_route_match *out) {
    const char *open = strchr(pattern, '['), *close = open ? strchr(open, ']') : NULL;
    const char *pattern_end = pattern + strlen(pattern);
    out->model[0] = out->version[0] = out->digest[0] = '\0';
    if (!open || !close) {
        return match_plain(pattern, pattern_end, &path, end, out) && path == end;
    }
    if (!match_plain(pattern, open, &path, end, out)) {
        return false;
    }
    const char *saved = path;
    if (match_plain(open + 1, close, &path, end, out) &&
        match_plain(close + 1, pattern_end, &path, end, out) && path == end) {
        return true;
    }
    path = saved;
    out->version[0] = '\0';
    return match_plain(close + 1, pattern_end, &path, end, out) && path == end;
}

static bool method_fits(const char *have, const char *asked) {
    return strcmp(have, asked) == 0 || (strcmp(have, "GET") == 0 && strcmp(asked, "HEAD") == 0);
}

static void add_allowed(char allow[LB_ALLOW_SIZE], const char *method) {
    const char *text = strcmp(method, "GET") == 0 ? "GET, HEAD" : method;
    size_t used = strlen(allow);
    if (strstr(allow, text) || used + strlen(text) + 3 > LB_ALLOW_SIZE) {
        return;
    }
    snprintf(allow + used, LB_ALLOW_SIZE - used, "%s%s", used > 0 ? ", " : "", text);
}

enum lb_status lb_route_find(const struct lb_route *routes, size_t n, const char *method, const char *path,
                             struct lb_route_match *out, char allow[LB_ALLOW_SIZE]) {
    size_t len = strlen(path);
    if (len > 1 && path[len - 1] == '/') {
        len--;
    }
    allow[0] = '\0';
    struct lb_route_match found;
    for (size_t i = 0; i < n; i++) {
        if (!match(routes[i].pattern, path, path + len, &found)) {
            continue;
        }
        if (method_fits(routes[i].method, method)) {
            found.route = &routes[i];
            *out = found;
            return LB_OK;
        }
        add_allowed(allow, routes[i].method);
    }
    return allow[0] ? LB_E_UNSUPPORTED : LB_E_NOTFOUND;
}

static bool owns(const struct lb_api_dialect *dialect, const char *path) {
    size_t len = strlen(dialect->prefix);
    return strncmp(path, dialect->prefix, len) == 0 && (len == 0 || path[len] == '/' || path[len] == '\0');
}

enum lb_status lb_dialect_find(const struct lb_api_dialect *const *dialects, size_t n, const char *method,
                               const char *path, const struct lb_api_dialect **out_dialect,
                               struct lb_route_match *out, char allow[LB_ALLOW_SIZE]) {
    const struct lb_api_dialect *owner = NULL, *other_method = NULL;
    char theirs[LB_ALLOW_SIZE];
    allow[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        enum lb_status status =
            lb_route_find(dialects[i]->routes, dialects[i]->n_routes, method, path, out, theirs);
        if (status == LB_OK) {
            *out_dialect = dialects[i];
            return LB_OK;
        }
        if (status == LB_E_UNSUPPORTED && !other_method) {
            other_method = dialects[i];
            memcpy(allow, theirs, sizeof theirs);
        }
        owner = owner || !owns(dialects[i], path) ? owner : dialects[i];
    }
    *out_dialect = other_method ? other_method : owner ? owner : dialects[n - 1];
    return other_method ? LB_E_UNSUPPORTED : LB_E_NOTFOUND;
}
