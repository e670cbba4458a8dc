/* Lines are computed one after the other, or by as many threads as there is scratch memory for. */

#if defined(_OPENMP) && THREADS > 1
#include <omp.h>
#define EACH_LINE(LINES)                                                                           \
    _Pragma("omp parallel for num_threads(THREADS)") for (int y = 0; y < (LINES); ++y)
#define SCRATCH (m->arena + SCRATCH_START + (size_t)omp_get_thread_num() * SCRATCH_BYTES)
#else
#define EACH_LINE(LINES) for (int y = 0; y < (LINES); ++y)
#define SCRATCH (m->arena + SCRATCH_START)
#endif

typedef struct {
    unsigned char *arena;
    const void *input;
    void *output;
} Memory;
