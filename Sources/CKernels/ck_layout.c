// NCHW ↔ NHWC, for files and images. A block of pixels stays in the L1 cache while all its channels are processed.
#include "ck_vector.h"

enum { PIXELS = 64 };

typedef struct {
    ck_dtype dtype;
    long C, P, blocks;  // P = H·W pixels per sample, in blocks of PIXELS
    const void *x;
    void *y;
} pass;

static void parallel_blocks(long B, pass *p, void (*body)(void *, long, long)) {
    p->blocks = (p->P + PIXELS - 1) / PIXELS;
    ck_parallel(B * p->blocks, ck_max(1, CK_GRAIN / PIXELS / ck_max(1, p->C)), body, p);
}

CK_INLINE void to_nhwc(ck_dtype T, const pass *p, long begin, long end) {
    for (long task = begin; task < end; task++) {
        long b = task / p->blocks, first = task % p->blocks * PIXELS, n = ck_min(PIXELS, p->P - first);
        const float *x = (const float *)p->x + b * p->C * p->P + first;
        void *y = ck_at_mutable(T, p->y, (b * p->P + first) * p->C);
        for (long c = 0; c < p->C; c++)
            for (long i = 0; i < n; i++) ck_store(T, y, i * p->C + c, x[c * p->P + i]);
    }
}

static void to_nhwc_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, to_nhwc(T, p, begin, end));
}

void ck_nchw_to_nhwc(ck_dtype to, long B, long C, long H, long W, const float *x, void *y) {
    pass p = {.dtype = to, .C = C, .P = H * W, .x = x, .y = y};
    parallel_blocks(B, &p, to_nhwc_body);
}

CK_INLINE void to_nchw(ck_dtype T, const pass *p, long begin, long end) {
    for (long task = begin; task < end; task++) {
        long b = task / p->blocks, first = task % p->blocks * PIXELS, n = ck_min(PIXELS, p->P - first);
        const void *x = ck_at(T, p->x, (b * p->P + first) * p->C);
        float *y = (float *)p->y + b * p->C * p->P + first;
        for (long c = 0; c < p->C; c++)
            for (long i = 0; i < n; i++) y[c * p->P + i] = ck_load(T, x, i * p->C + c);
    }
}

static void to_nchw_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, to_nchw(T, p, begin, end));
}

void ck_nhwc_to_nchw(ck_dtype from, long B, long C, long H, long W, const void *x, float *y) {
    pass p = {.dtype = from, .C = C, .P = H * W, .x = x, .y = y};
    parallel_blocks(B, &p, to_nchw_body);
}
