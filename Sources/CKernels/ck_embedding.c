// A table lookup and its gradient. B samples, N entries of D values; a batch has few samples, so plain loops suffice.
#include "ck_vector.h"

#include <string.h>

static long entry(const float *labels, long b, long N) {
    long index = (long)labels[b];
    return index < 0 ? 0 : index >= N ? N - 1 : index;  // callers validate labels; never read outside the table
}

void ck_embedding_forward(
    ck_dtype table_type, ck_dtype dtype, long B, long N, long D, const float *labels, const void *table, void *y) {
    for (long b = 0; b < B; b++) {
        long from = entry(labels, b, N) * D;
        for (long d = 0; d < D; d++) ck_store(dtype, y, b * D + d, ck_load(table_type, table, from + d));
    }
}

void ck_embedding_backward(
    ck_dtype dtype, long B, long N, long D, const float *labels, const void *gy, float *gradient, int accumulates) {
    if (!accumulates) memset(gradient, 0, (size_t)(N * D) * sizeof(float));
    for (long b = 0; b < B; b++) {
        float *to = gradient + entry(labels, b, N) * D;
        for (long d = 0; d < D; d++) to[d] += ck_load(dtype, gy, b * D + d);
    }
}
