// The diagonal Gaussian of an autoencoder: sampling, gradient, Kullback-Leibler divergence.
#include "ck_vector.h"

typedef struct {
    ck_dtype dtype;
    long P, C;
    const void *moments, *gz;
    const float *noise;
    float klWeight;
    void *out;
    double *kl;
} pass;

static const float LOWEST = -30, HIGHEST = 20;  // limits of logvar, as in diffusers' DiagonalGaussianDistribution

CK_INLINE float clamp(float logvar) {
    logvar = logvar < LOWEST ? LOWEST : logvar;
    return logvar > HIGHEST ? HIGHEST : logvar;
}

static void parallel_rows(long B, pass *p, void (*body)(void *, long, long)) {
    ck_parallel(B * p->P, ck_max(1, CK_GRAIN / 4 / ck_max(1, p->C)), body, p);
}

CK_INLINE void sample_forward(ck_dtype T, const pass *p, long begin, long end) {
    const long C = p->C;
    for (long row = begin; row < end; row++) {
        const void *mean = ck_at(T, p->moments, row * 2 * C), *logvar = ck_at(T, mean, C);
        void *z = ck_at_mutable(T, p->out, row * C);
        for (long c = 0; c < C; c++) {
            float value = ck_load(T, mean, c);
            if (p->noise) value += ck_exp(0.5f * clamp(ck_load(T, logvar, c))) * p->noise[row * C + c];
            ck_store(T, z, c, value);
        }
    }
}

CK_KERNEL static void forward_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, sample_forward(T, p, begin, end));
}

void ck_gaussian_sample_forward(
    ck_dtype dtype, long B, long P, long C, const void *moments, const float *noise, void *z) {
    pass p = {.dtype = dtype, .P = P, .C = C, .moments = moments, .noise = noise, .out = z};
    parallel_rows(B, &p, forward_body);
}

CK_INLINE void sample_backward(ck_dtype T, const pass *p, long begin, long end) {
    const long C = p->C;
    for (long row = begin; row < end; row++) {
        const void *mean = ck_at(T, p->moments, row * 2 * C), *gz = ck_at(T, p->gz, row * C);
        void *gmoments = ck_at_mutable(T, p->out, row * 2 * C);
        for (long c = 0; c < C; c++) {
            float g = ck_load(T, gz, c), unclamped = ck_load(T, mean, C + c), logvar = clamp(unclamped);
            float deviation = ck_exp(0.5f * logvar), glogvar = 0;
            if (logvar == unclamped) {  // a clamped logvar has no gradient
                glogvar = 0.5f * p->klWeight * (deviation * deviation - 1);
                if (p->noise) glogvar += 0.5f * g * p->noise[row * C + c] * deviation;
            } else if (unclamped != unclamped) {
                glogvar = unclamped;  // propagate NaN
            }
            ck_store(T, gmoments, c, g + p->klWeight * ck_load(T, mean, c));
            ck_store(T, gmoments, C + c, glogvar);
        }
    }
}

CK_KERNEL static void backward_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, sample_backward(T, p, begin, end));
}

void ck_gaussian_sample_backward(ck_dtype dtype, long B, long P, long C, const void *moments,
                                 const float *noise, const void *gz, float klWeight, void *gmoments) {
    pass p = {.dtype = dtype, .P = P, .C = C, .moments = moments, .gz = gz, .noise = noise, .klWeight = klWeight,
              .out = gmoments};
    parallel_rows(B, &p, backward_body);
}

CK_INLINE double divergence(ck_dtype T, const pass *p, long b) {
    double sum = 0;
    for (long row = b * p->P; row < (b + 1) * p->P; row++) {
        const void *mean = ck_at(T, p->moments, row * 2 * p->C);
        for (long c = 0; c < p->C; c++) {
            float m = ck_load(T, mean, c), logvar = clamp(ck_load(T, mean, p->C + c));
            sum += (double)m * m + (double)ck_exp(logvar) - 1 - (double)logvar;
        }
    }
    return sum / 2;
}

CK_KERNEL static void divergence_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long b = begin; b < end; b++) CK_BY_TYPE(p->dtype, p->kl[b] = divergence(T, p, b));
}

void ck_gaussian_kl(ck_dtype dtype, long B, long P, long C, const void *moments, double *kl) {
    pass p = {.dtype = dtype, .P = P, .C = C, .moments = moments, .kl = kl};
    ck_parallel(B, 1, divergence_body, &p);
}
