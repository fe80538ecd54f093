#include "tests/bench/profile.h"

#include "common/base/mem.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <omp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define MAX_THREADS 256
#define MAX_SAMPLES (1 << 17)
#define MAX_PHASES 16
#define MAX_KINDS 64
#define PERIOD_NS 1000000

struct sample {
    uintptr_t at;
    uintptr_t region; /* the function that is the parallel region under way; 0: none */
    uint8_t phase;
    bool alone; /* outside of parallel regions */
};

static struct sample *samples[MAX_THREADS];
static int n_samples[MAX_THREADS], n_threads;
static timer_t timers[MAX_THREADS];
static const char *phases[MAX_PHASES];
static volatile int n_phases, phase;
static volatile uintptr_t region;
static _Thread_local int self = -1;

static void on_tick(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)info;
    if (self < 0 || n_samples[self] == MAX_SAMPLES) {
        return;
    }
    const ucontext_t *c = context;
#if defined(__x86_64__)
    uintptr_t at = (uintptr_t)c->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    uintptr_t at = (uintptr_t)c->uc_mcontext.pc;
#else
    uintptr_t at = 0;
#endif
    samples[self][n_samples[self]++] = (struct sample){at, region, (uint8_t)phase, !omp_in_parallel()};
}

/* Stands before libgomp's own: every parallel region of the program begins with it. */
void GOMP_parallel(void (*fn)(void *), void *data, unsigned threads, unsigned flags);
void GOMP_parallel(void (*fn)(void *), void *data, unsigned threads, unsigned flags) {
    static void (*real)(void (*)(void *), void *, unsigned, unsigned);
    if (real == NULL) {
        void *found = dlsym(RTLD_NEXT, "GOMP_parallel");
        memcpy(&real, &found, sizeof real); /* C has no cast from data to functions */
    }
    if (real == NULL) {
        fprintf(stderr, "profile: no GOMP_parallel\n");
        exit(1);
    }
    if (omp_in_parallel()) {
        real(fn, data, threads, flags);
        return;
    }
    uintptr_t address;
    memcpy(&address, &fn, sizeof address);
    region = address;
    real(fn, data, threads, flags);
    region = 0;
}

static void watch_this_thread(void) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
    struct itimerspec period = {{0, PERIOD_NS}, {0, PERIOD_NS}};
    int i = omp_get_thread_num();
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    samples[i] = lb_malloc_array(MAX_SAMPLES, sizeof *samples[i]);
    n_samples[i] = 0;
    self = i;
    if (samples[i] == NULL || timer_create(CLOCK_MONOTONIC, &event, &timers[i]) != 0 ||
        timer_settime(timers[i], 0, &period, NULL) != 0) {
        fprintf(stderr, "profile: no timer for a thread\n");
        exit(1);
    }
}

void lb_profile_begin(void) {
    struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    n_threads = omp_get_max_threads() < MAX_THREADS ? omp_get_max_threads() : MAX_THREADS;
    n_phases = 0;
    lb_profile_phase("begin");
    sigaction(SIGPROF, &action, NULL);
#pragma omp parallel num_threads(n_threads)
    watch_this_thread();
}

void lb_profile_phase(const char *name) {
    int i = 0;
    while (i < n_phases && strcmp(phases[i], name) != 0) {
        i++;
    }
    if (i == n_phases && i < MAX_PHASES) {
        phases[i] = name;
        n_phases = i + 1;
    }
    phase = i;
}

/* ---- what stands at an address ----------------------------------------------------------------------------
 */

struct symbol {
    uintptr_t from, to;
    const char *name, *file; /* file: of static functions */
};

static struct symbol *symbols;
static size_t n_symbols;

static int by_address(const void *a, const void *b) {
    const struct symbol *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* Functions that are not static have no file: the one of those beside them. */
static void spread_files(void) {
    for (size_t i = 1; i < n_symbols; i++) {
        if (symbols[i].file == NULL) {
            symbols[i].file = symbols[i - 1].file;
        }
    }
}

static int first_base(struct dl_phdr_info *info, size_t size, void *out) {
    (void)size;
    *(uintptr_t *)out = info->dlpi_addr;
    return 1; /* the program comes first */
}

static void read_symbols(void) {
    struct stat st;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (symbols != NULL || fd < 0 || fstat(fd, &st) != 0) {
        return;
    }
    const char *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (file == MAP_FAILED) {
        return;
    }
    uintptr_t base = 0;
    dl_iterate_phdr(first_base, &base);
    const Elf64_Ehdr *header = (const void *)file;
    const Elf64_Shdr *sections = (const void *)(file + header->e_shoff);
    for (int s = 0; s < header->e_shnum; s++) {
        if (sections[s].sh_type != SHT_SYMTAB) {
            continue;
        }
        const Elf64_Sym *table = (const void *)(file + sections[s].sh_offset);
        const char *names = file + sections[sections[s].sh_link].sh_offset, *source = NULL;
        size_t n = sections[s].sh_size / sizeof *table;
        symbols = lb_malloc_array(n, sizeof *symbols);
        for (size_t i = 0; symbols != NULL && i < n; i++) {
            int type = ELF64_ST_TYPE(table[i].st_info);
            const char *name = names + table[i].st_name;
            bool local = ELF64_ST_BIND(table[i].st_info) == STB_LOCAL;
            source = type == STT_FILE ? name : source;
            if (type == STT_FUNC && table[i].st_size > 0) {
                uintptr_t from = base + table[i].st_value;
                symbols[n_symbols++] =
                    (struct symbol){from, from + table[i].st_size, name, local ? source : NULL};
            }
        }
    }
    if (n_symbols > 0) {
        qsort(symbols, n_symbols, sizeof *symbols, by_address);
        spread_files();
    }
}

static const struct symbol *find_symbol(uintptr_t at) {
    size_t low = 0, high = n_symbols;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (symbols[middle].to <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n_symbols && symbols[low].from <= at ? &symbols[low] : NULL;
}

/* A kind of work for each file of the program's own; the rest by library. */
static const struct {
    const char *file, *kind;
} kinds_of_files[] = {
    {"attention.c", "attention"},
    {"norm.c", "norms"},
    {"gemm.c", "products: our part"},
    {"optimizer.c", "optimizer"},
    {"reduce.c", "reductions"},
    {"head.c", "head"},
    {"rope.c", "rope"},
    {"activation.c", "activation"},
    {"elementwise.c", "elementwise"},
    {"embedding.c", "embedding"},
    {"bench_model.c", "losses"},
};

static const char *kind_of(uintptr_t at) {
    const struct symbol *own = find_symbol(at);
    Dl_info info;
    for (size_t i = 0; own != NULL && own->file != NULL && i < sizeof kinds_of_files / sizeof *kinds_of_files;
         i++) {
        if (strcmp(own->file, kinds_of_files[i].file) == 0) {
            return kinds_of_files[i].kind;
        }
    }
    if (own != NULL) {
        return own->file != NULL ? own->file : own->name;
    }
    if (dladdr((const void *)at, &info) == 0) {
        return "kernel's page";
    }
    const char *library = strrchr(info.dli_fname, '/'), *name = info.dli_sname;
    library = library != NULL ? library + 1 : info.dli_fname;
    if (strstr(library, "openblas") != NULL) {
        return name == NULL                   ? "gemm"
               : strstr(name, "copy") != NULL ? "packing"
               : strstr(name, "beta") != NULL ? "gemm: beta"
                                              : "gemm";
    }
    return strstr(library, "gomp") != NULL ? "waiting" : library;
}

/* Who waits, for what. The names are few and live on. */
static const char *kind_of_sample(const struct sample *s) {
    static struct {
        uintptr_t region;
        char kind[48];
    } known[MAX_KINDS];
    const char *kind = kind_of(s->at);
    if (strcmp(kind, "waiting") != 0 || s->region == 0) {
        return kind;
    }
    for (int i = 0; i < MAX_KINDS; i++) {
        if (known[i].region == 0) {
            const struct symbol *own = find_symbol(s->region);
            known[i].region = s->region;
            snprintf(known[i].kind, sizeof known[i].kind, "waiting: %.24s %.12s",
                     own != NULL ? own->name : "?", own != NULL && own->file != NULL ? own->file : "");
        }
        if (known[i].region == s->region) {
            return known[i].kind;
        }
    }
    return kind;
}

struct count {
    const char *phase, *kind;
    long all, of_main, alone;
};

static struct count *count_of(struct count *counts, int *n, const char *phase_name, const char *kind) {
    for (int i = 0; i < *n; i++) {
        if (counts[i].phase == phase_name && strcmp(counts[i].kind, kind) == 0) {
            return &counts[i];
        }
    }
    if (*n < MAX_PHASES * MAX_KINDS) {
        counts[*n] = (struct count){phase_name, kind, 0, 0, 0};
        (*n)++;
    }
    return &counts[*n - 1];
}

static int by_share(const void *a, const void *b) {
    const struct count *x = a, *y = b;
    return x->all < y->all ? 1 : x->all > y->all ? -1 : 0;
}

void lb_profile_end(const char *work) {
    static struct count counts[MAX_PHASES * MAX_KINDS];
    long all = 0, of_main = n_samples[0] > 0 ? n_samples[0] : 1;
    int n = 0;
    for (int t = 0; t < n_threads; t++) {
        timer_delete(timers[t]);
        all += n_samples[t];
    }
    read_symbols();
    for (int t = 0; t < n_threads; t++) {
        for (int i = 0; i < n_samples[t]; i++) {
            const struct sample *s = &samples[t][i];
            struct count *c = count_of(counts, &n, phases[s->phase], kind_of_sample(s));
            c->all++;
            c->of_main += t == 0;
            c->alone += t == 0 && s->alone;
        }
        lb_free(samples[t]);
        samples[t] = NULL;
    }
    qsort(counts, (size_t)n, sizeof *counts, by_share);
    for (int i = 0; i < n; i++) {
        printf("{\"profile\": \"%s\", \"phase\": \"%s\", \"kind\": \"%s\", \"share\": %.4f, "
               "\"of_main\": %.4f, \"alone\": %.4f}\n",
               work, counts[i].phase, counts[i].kind, (double)counts[i].all / (double)(all > 0 ? all : 1),
               (double)counts[i].of_main / (double)of_main, (double)counts[i].alone / (double)of_main);
    }
    fflush(stdout);
}
