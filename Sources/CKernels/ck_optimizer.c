// Operations on the flat parameter store: norm, AdamW, averages, hash.
#include "ck_vector.h"

#include <math.h>

// MARK: sum of squares

enum { PARTS = 1024, LANES = 16 };

typedef double lanes __attribute__((ext_vector_type(LANES)));
typedef float floats __attribute__((ext_vector_type(LANES), aligned(4)));

typedef struct {
    long n, part;  // elements in total, and per part
    const float *g;
    double sums[PARTS];
} squares;

/// The order of the additions is explicit, lane by lane, and the square of a float is exact in double precision, so
/// every processor computes the same sum.
CK_KERNEL static void squares_body(void *context, long begin, long end) {
    squares *p = context;
    for (long part = begin; part < end; part++) {
        const float *g = p->g + part * p->part;
        long n = ck_min(p->part, p->n - part * p->part), i = 0;
        lanes sums = 0;
        for (; i + LANES <= n; i += LANES) {
            lanes value = __builtin_convertvector(*(const floats *)(g + i), lanes);
            sums += value * value;
        }
        double sum = 0;
        for (; i < n; i++) sum += (double)g[i] * g[i];
        for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
        p->sums[part] = sum;
    }
}

double ck_sum_of_squares(long n, const float *g) {
    squares p = {.n = n, .g = g};
    p.part = ck_max(4096, ((n + PARTS - 1) / PARTS + LANES - 1) / LANES * LANES);
    long parts = (n + p.part - 1) / p.part;
    ck_parallel(parts, ck_max(1, CK_GRAIN / p.part), squares_body, &p);
    double sum = 0;
    for (long part = 0; part < parts; part++) sum += p.sums[part];
    return sum;
}

// MARK: AdamW

typedef struct {
    const ck_adamw *settings;
    float *w, *m, *v;
    const float *g;
} adamw;

CK_KERNEL static void adamw_body(void *context, long begin, long end) {
    const adamw *p = context;
    const ck_adamw *s = p->settings;
    float *w = p->w, *m = p->m, *v = p->v;
    const float *g = p->g;
    // Factors are rounded to fp32 once, at the same place as in PyTorch.
    const float gradientScale = (float)s->gradientScale, decay = (float)(1 - s->lr * s->weightDecay);
    const float weight1 = (float)(1 - s->beta1), beta2 = (float)s->beta2, weight2 = (float)(1 - s->beta2);
    const float stepSize = (float)(s->lr / s->biasCorrection1), root2 = (float)sqrt(s->biasCorrection2);
    const float eps = (float)s->eps;
    CK_LOOP
    for (long i = begin; i < end; i++) {
        float gradient = gradientScale * g[i];
        m[i] += weight1 * (gradient - m[i]);
        v[i] = beta2 * v[i] + weight2 * (gradient * gradient);
        float denominator = __builtin_elementwise_sqrt(v[i]) / root2 + eps;
        w[i] = decay * w[i] - stepSize * m[i] / denominator;
    }
}

void ck_adamw_step(const ck_adamw *settings, long n, float *w, const float *g, float *m, float *v) {
    adamw p = {settings, w, m, v, g};
    ck_parallel(n, CK_GRAIN, adamw_body, &p);
}

// MARK: averages

typedef struct {
    float a, b;
    const float *x;
    float *y;
} affine;

CK_KERNEL static void affine_body(void *context, long begin, long end) {
    const affine *p = context;
    const float a = p->a, b = p->b, *x = p->x;
    float *y = p->y;
    if (x) {
        CK_LOOP
        for (long i = begin; i < end; i++) y[i] = a * y[i] + b * x[i];
    } else {
        CK_LOOP
        for (long i = begin; i < end; i++) y[i] *= a;
    }
}

void ck_ema_update(long n, float decay, const float *w, float *average) {
    affine p = {decay, (float)(1 - (double)decay), w, average};
    ck_parallel(n, CK_GRAIN, affine_body, &p);
}

void ck_scale(long n, float factor, float *y) {
    affine p = {.a = factor, .y = y};
    ck_parallel(n, CK_GRAIN, affine_body, &p);
}

// MARK: hash

/// FNV never propagates a high bit downwards: without the fold, two flipped sign bits would cancel.
CK_INLINE uint64_t mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * UINT64_C(0x100000001B3);
    return hash ^ hash >> 32;
}

uint64_t ck_hash(size_t bytes, const void *data) {
    const char *p = data;
    uint64_t hash = UINT64_C(0xCBF29CE484222325), word = 0;
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        memcpy(&word, p + i, 8);
        hash = mix(hash, word);
    }
    if (i == bytes) return hash;
    word = 0;
    memcpy(&word, p + i, bytes - i);
    return mix(hash, word);
}
