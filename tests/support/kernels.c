/* kernels CORE: whether OpenBLAS has taken that core's kernels (OPENBLAS_CORETYPE; "any": whichever), and a
 * digest of what they make of a few products: "Haswell 9a3f...". Status 1, with the reason, when this CPU or
 * library has not those. Asked in two steps, since kernels that the CPU lacks end the program. */
#include "common/base/sha256.h"
#include "common/nn/cpu.h"
#include "common/nn/gemm.h"

#include <stdio.h>
#include <string.h>

/* From lb_gemm_description: "OpenBLAS 0.3.21 Haswell, 2 threads". */
static void core_name(char *out, size_t size) {
    const char *text = lb_gemm_description(), *comma = strchr(text, ','), *at = comma;
    while (at != NULL && at > text && at[-1] != ' ') {
        at--;
    }
    snprintf(out, size, "%.*s", comma != NULL ? (int)(comma - at) : 0, at != NULL ? at : "");
}

int main(int argc, char **argv) {
    static float x[96 * 200], w[80 * 200], y[96 * 80];
    char core[64], hex[LB_SHA256_HEX];
    uint8_t digest[LB_SHA256_BYTES];
    const char *wanted = argc > 1 ? argv[1] : "any";
    bool avx512 = strcmp(wanted, "SkylakeX") == 0, avx2 = strcmp(wanted, "Haswell") == 0;
    if ((avx512 && lb_cpu_class() < LB_CPU_AVX512) || (avx2 && lb_cpu_class() < LB_CPU_AVX2) ||
        !lb_cpu_has("avx")) {
        printf("this CPU cannot execute them\n");
        return 1;
    }
    core_name(core, sizeof core);
    if (strcmp(wanted, "any") != 0 && strcmp(wanted, core) != 0) {
        printf("this OpenBLAS takes %s's instead\n", core);
        return 1;
    }
    for (int i = 0; i < 96 * 200; i++) {
        x[i] = (float)((i * 7919) % 1999) / 997.0f - 1;
        w[i % (80 * 200)] = (float)((i * 104729) % 2003) / 1009.0f - 1;
    }
    const int32_t offsets[] = {0, 7, 40, 96};
    const struct lb_ragged ragged = {3, offsets};
    lb_gemm_nt(96, 80, 200, x, 200, w, 200, 0, y, 80, &ragged);
    lb_sha256(y, sizeof y, digest);
    lb_hex(digest, sizeof digest, hex);
    printf("%s %s\n", core, hex);
    return 0;
}
