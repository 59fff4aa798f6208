// The nearest entry of a codebook, for vector quantization (van den Oord et al., 2017).
//
// Distances are computed as sums of (x − c)², because x² − 2xc + c² would suffer from cancellation. A tile of the
// codebook is transposed once per block of rows, so that the inner loop runs over codes.
#include "ck_vector.h"

enum { ROWS = 16, CODES = 64, DEPTH = 32 };

typedef float vector __attribute__((ext_vector_type(16), aligned(4)));

typedef struct {
    long K, D;
    const float *x, *codebook;
    int32_t *index;
} pass;

/// distances [rows, CODES] from `rows` rows of x to the codes first ..< first + n; columns beyond n repeat the last
/// code.
CK_INLINE void distances_to(const pass *p, const float *x, long rows, long first, long n, float *distances) {
    float tile[DEPTH * CODES];
    for (long i = 0; i < rows * CODES; i++) distances[i] = 0;
    for (long depth = 0; depth < p->D; depth += DEPTH) {
        long deep = ck_min(DEPTH, p->D - depth);
        for (long k = 0; k < CODES; k++)
            for (long d = 0; d < deep; d++)
                tile[d * CODES + k] = p->codebook[(first + ck_min(k, n - 1)) * p->D + depth + d];
        for (long row = 0; row < rows; row++) {
            float *distance = distances + row * CODES;
            for (long d = 0; d < deep; d++) {
                const float value = x[row * p->D + depth + d], *codes = tile + d * CODES;
                CK_CHANNELS
                for (long k = 0; k < CODES; k++) distance[k] += (value - codes[k]) * (value - codes[k]);
            }
        }
    }
}

CK_INLINE float least(const float *distance) {
    vector lanes = *(const vector *)distance;
    for (long k = 16; k < CODES; k += 16)
        lanes = __builtin_elementwise_min(lanes, *(const vector *)(distance + k));
    return __builtin_reduce_min(lanes);
}

CK_KERNEL static void body(void *context, long begin, long end) {
    const pass *p = context;
    float distances[ROWS * CODES];
    for (long block = begin; block < end; block += ROWS) {
        long rows = ck_min(ROWS, end - block);
        float best[ROWS];
        for (long first = 0; first < p->K; first += CODES) {
            long n = ck_min(CODES, p->K - first);
            distances_to(p, p->x + block * p->D, rows, first, n, distances);
            for (long row = 0; row < rows; row++) {
                const float *distance = distances + row * CODES;
                if (first == 0) best[row] = distance[0], p->index[block + row] = 0;
                if (!(least(distance) < best[row])) continue;
                for (long k = 0; k < n; k++) {
                    if (!(distance[k] < best[row])) continue;
                    best[row] = distance[k];
                    p->index[block + row] = (int32_t)(first + k);
                }
            }
        }
    }
}

void ck_nearest_code(long rows, long K, long D, const float *x, const float *codebook, int32_t *index) {
    pass p = {.K = K, .D = D, .x = x, .codebook = codebook, .index = index};
    ck_parallel(rows, ROWS, body, &p);
}
