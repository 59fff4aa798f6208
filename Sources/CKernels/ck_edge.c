#include "ck_edge.h"

#include "ck_parallel.h"
#include <math.h>
#include <string.h>

typedef struct {
    ck_dtype dtype;
    long H, W, C;
    const void *x;
    const float *target, *weight;
    double *loss;
    void *gx;
} edges;

static inline float load(ck_dtype dtype, const void *x, long i) {
    if (dtype == CK_F32) return ((const float *)x)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)x)[i] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline void store(ck_dtype dtype, void *x, long i, float value) {
    if (dtype == CK_F32) {
        ((float *)x)[i] = value;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &value, 4);
    ((uint16_t *)x)[i] = (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

static inline float sign(float value) { return (float)((value > 0) - (value < 0)); }

static void edge_samples(void *context, long begin, long end) {
    const edges *p = context;
    long row = p->W * p->C, n = p->H * row;
    for (long b = begin; b < end; b++) {
        long base = b * n;
        double sum = 0;
        for (long i = 0; i < n; i++) {
            // Each difference is visited from both of its pixels, and each visit adds half of it to the loss.
            long y = i / row, x = i % row;
            float e = load(p->dtype, p->x, base + i) - p->target[base + i], g = 0;
            const long steps[4] = {x >= p->C ? -p->C : 0, x < row - p->C ? p->C : 0, y > 0 ? -row : 0,
                                   y < p->H - 1 ? row : 0};
            for (int k = 0; k < 4; k++) {
                if (!steps[k]) continue;
                long j = base + i + steps[k];
                float difference = e - (load(p->dtype, p->x, j) - p->target[j]);
                sum += 0.5 * fabsf(difference);
                g += sign(difference);
            }
            store(p->dtype, p->gx, base + i, g * p->weight[b]);
        }
        p->loss[b] = sum;
    }
}

void ck_edge_error(ck_dtype dtype, long B, long H, long W, long C, const void *x, const float *target,
                   const float *weight, double *loss, void *gx) {
    edges p = {dtype, H, W, C, x, target, weight, loss, gx};
    ck_parallel(B, 1, edge_samples, &p);
}
