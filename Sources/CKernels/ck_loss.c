// Squared and absolute error, each with its gradient.
//
// A sample is divided into SEGMENTS parts whose sums are combined in order, so the loss depends neither on the number
// of threads nor on whether they share samples or parts.
#include "ck_vector.h"

enum { SEGMENTS = 16 };

typedef struct {
    ck_dtype dtype;
    long n;
    int absolute;
    const void *x;
    const float *target, *weight;
    double *loss;
    void *gx;
    long sample;             // the sample, if the segments of one sample are distributed over threads
    double parts[SEGMENTS];  // the sums of its segments
} pass;

CK_INLINE double error_of(ck_dtype T, int absolute, int gradient, long n, const void *x, const float *target,
                          float weight, void *gx) {
#pragma clang fp reassociate(on)
    double sum = 0;
#pragma clang loop vectorize(assume_safety) vectorize_width(16) interleave_count(1)
    for (long i = 0; i < n; i++) {
        float d = ck_load(T, x, i) - target[i];
        if (absolute) {
            sum += (double)__builtin_fabsf(d);
            float sign = d > 0 ? weight : d < 0 ? -weight : d * weight;  // 0 at 0; NaN propagates
            if (gradient) ck_store(T, gx, i, sign);
        } else {
            sum += (double)d * (double)d;
            if (gradient) ck_store(T, gx, i, 2 * d * weight);
        }
    }
    return sum;
}

CK_INLINE double segment(ck_dtype T, int gradient, const pass *p, long b, long part) {
    long first = p->n * part / SEGMENTS, n = p->n * (part + 1) / SEGMENTS - first, at = b * p->n + first;
    float weight = p->weight ? p->weight[b] : 1;
    const void *x = ck_at(T, p->x, at);
    void *gx = gradient ? ck_at_mutable(T, p->gx, at) : NULL;
    return p->absolute ? error_of(T, 1, gradient, n, x, p->target + at, weight, gx)
                       : error_of(T, 0, gradient, n, x, p->target + at, weight, gx);
}

CK_KERNEL static void segments_body(void *context, long begin, long end) {
    pass *p = context;
    for (long part = begin; part < end; part++)
        CK_BY_TYPE_AND_FLAG(p->dtype, p->gx != NULL, p->parts[part] = segment(T, FLAG, p, p->sample, part));
}

static double total(const double *parts) {
    double sum = 0;
    for (long part = 0; part < SEGMENTS; part++) sum += parts[part];
    return sum;
}

static void samples_body(void *context, long begin, long end) {
    pass p = *(const pass *)context;
    for (p.sample = begin; p.sample < end; p.sample++) {
        segments_body(&p, 0, SEGMENTS);
        p.loss[p.sample] = total(p.parts);
    }
}

static void run(long B, pass *p) {
    if (B >= ck_threads()) {
        ck_parallel(B, ck_max(1, CK_GRAIN / ck_max(1, p->n)), samples_body, p);
        return;
    }
    for (p->sample = 0; p->sample < B; p->sample++) {
        ck_parallel(SEGMENTS, ck_max(1, CK_GRAIN / ck_max(1, p->n / SEGMENTS)), segments_body, p);
        p->loss[p->sample] = total(p->parts);
    }
}

void ck_squared_error(ck_dtype dtype, long B, long n, const void *x, const float *target, const float *weight,
                      double *loss, void *gx) {
    pass p = {.dtype = dtype, .n = n, .x = x, .target = target, .weight = weight, .loss = loss, .gx = gx};
    run(B, &p);
}

void ck_absolute_error(ck_dtype dtype, long B, long n, const void *x, const float *target,
                       const float *weight, double *loss, void *gx) {
    pass p = {.dtype = dtype, .n = n, .absolute = 1, .x = x, .target = target, .weight = weight, .loss = loss,
              .gx = gx};
    run(B, &p);
}
