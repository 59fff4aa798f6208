// One thread pool for oneDNN and our own loops: that of libgomp, used through its C interface, because the Swift
// toolchain's clang has no OpenMP runtime. OpenBLAS always runs on the calling thread.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Sets the number of threads of this process; call it once, before the first kernel. Also sets OpenBLAS to one thread.
void ck_set_threads(int threads);
/// The number of threads of a parallel loop.
int ck_threads(void);
/// Calls body(context, begin, end) on ranges that cover 0..<count, each a multiple of `grain` except for the last. The
/// partition depends only on count, grain and the number of threads. Nested calls run on the calling thread.
void ck_parallel(long count, long grain, void (*body)(void *context, long begin, long end), void *context);

#ifdef __cplusplus
}
#endif
