#include "ckernels.h"

#include <cblas.h>

// libgomp's stable C interface.
extern void GOMP_parallel(void (*fn)(void *), void *data, unsigned threads, unsigned flags);
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);
extern int omp_in_parallel(void);
extern int omp_get_max_threads(void);
extern void omp_set_num_threads(int);

static int threads_set;

void ck_set_threads(int threads) {
    threads_set = threads < 1 ? 1 : threads;
    omp_set_num_threads(threads_set);
    openblas_set_num_threads(1);
}

int ck_threads(void) {
    if (!threads_set) ck_set_threads(omp_get_max_threads());
    return threads_set;
}

typedef struct {
    long count, grain;
    void (*body)(void *, long, long);
    void *context;
} loop;

static void run_share(void *data) {
    const loop *l = data;
    long thread = omp_get_thread_num(), threads = omp_get_num_threads();
    long grains = (l->count + l->grain - 1) / l->grain;
    long begin = grains * thread / threads * l->grain, end = grains * (thread + 1) / threads * l->grain;
    if (end > l->count) end = l->count;
    if (begin < end) l->body(l->context, begin, end);
}

void ck_parallel(long count, long grain, void (*body)(void *, long, long), void *context) {
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    int threads = ck_threads();
    if (threads == 1 || count <= grain || omp_in_parallel()) {
        body(context, 0, count);
        return;
    }
    loop l = {count, grain, body, context};
    GOMP_parallel(run_share, &l, (unsigned)threads, 0);
}
