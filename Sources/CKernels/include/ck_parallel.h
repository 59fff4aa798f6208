// One pool of threads for oneDNN and for our own loops: libgomp's, entered by its C interface, since the
// Swift toolchain's clang has no OpenMP runtime of its own. OpenBLAS always runs on the calling thread.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Sets the threads of this process; call it once, before the first kernel. Also sets OpenBLAS to one thread.
void ck_set_threads(int threads);
/// The threads that a parallel loop uses.
int ck_threads(void);
/// Calls body(context, begin, end) on ranges that cover 0..<count, each a multiple of `grain` but for the last.
/// The split depends on count, grain and the number of threads only. Nested calls run on the calling thread.
void ck_parallel(long count, long grain, void (*body)(void *context, long begin, long end), void *context);

#ifdef __cplusplus
}
#endif
