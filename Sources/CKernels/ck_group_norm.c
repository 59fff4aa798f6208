// GroupNorm (Wu and He, 2018) over x [B, P, C], whose C channels form G groups, optionally with fused SiLU.
//
// A sample's P rows are divided into slabs whose height depends only on C. Each slab yields partial sums, the slabs of
// a sample are combined in order in double precision, and a second pass over the slabs writes the output. The results
// therefore do not depend on the number of threads. If there are enough samples for all threads, each sample is
// processed completely while it is in the cache; otherwise the slabs of all samples are distributed over the threads.
#include "ck_vector.h"

#include <math.h>

enum { TILE = 256 };  // channels on the stack at a time

typedef struct {
    ck_dtype dtype;
    long B, P, C, G, width;  // width: channels per group
    long rows, slabs;        // rows per slab; slabs per sample
    float eps;
    int silu, has_addend;
    const void *x, *gy, *addend;
    const float *gamma, *beta;
    float *mean, *rstd;  // [B, G]
    void *out;           // y, or gx
    double *sums;        // forward: [B, slabs, 2, G], sums of x and of x²
    float *channels;     // backward: [B, slabs, 2, C], sums of gz·x̂ and of gz (z = gamma·x̂ + beta)
    float *groups;       // backward: [B, 2, G], means over a group of gamma·gz·x̂ and of gamma·gz
    float *ggamma, *gbeta;
    int accumulate;
} pass;

static pass make_pass(ck_dtype dtype, long B, long P, long C, long G, int silu) {
    pass p = {.dtype = dtype, .B = B, .P = P, .C = C, .G = G, .width = C / G, .silu = silu};
    p.rows = ck_min(256, ck_max(32, CK_GRAIN / C / 4 * 4));
    p.slabs = (P + p.rows - 1) / p.rows;
    return p;
}

size_t ck_group_norm_scratch_bytes(long B, long P, long C, long G) {
    pass p = make_pass(CK_F32, B, P, C, G, 0);
    size_t forward = (size_t)(B * p.slabs * 2 * G) * sizeof(double);
    size_t backward = (size_t)(B * p.slabs * 2 * C + B * 2 * G) * sizeof(float);
    return forward > backward ? forward : backward;
}

/// Slab `task` (counted over all samples): its sample, its first row in [B·P], and its number of rows.
CK_INLINE void slab_at(const pass *p, long task, long *b, long *first, long *n) {
    *b = task / p->slabs;
    long row = task % p->slabs * p->rows;
    *first = *b * p->P + row;
    *n = ck_min(p->rows, p->P - row);
}

/// out[c] = statistics[group of channel first + c]
CK_INLINE void spread(const pass *p, const float *statistics, long first, long n, float *out) {
    long group = first / p->width, left = p->width - first % p->width;
    for (long c = 0; c < n;) {
        for (long end = c + ck_min(left, n - c); c < end; c++) out[c] = statistics[group];
        group++;
        left = p->width;
    }
}

// MARK: forward

/// Sums of x and x² over one slab, one per group. Within the slab the first row is subtracted from x, which keeps fp32
/// sums sufficiently exact if the mean is far larger than the standard deviation.
CK_INLINE void slab_moments(ck_dtype T, const pass *p, long first, long rows, double *sums) {
    for (long g = 0; g < 2 * p->G; g++) sums[g] = 0;
    for (long tile = 0; tile < p->C; tile += TILE) {
        long n = ck_min(TILE, p->C - tile), C = p->C;
        const void *x = ck_at(T, p->x, first * C + tile);
        float pivot[TILE], s1[TILE], s2[TILE];
        CK_CHANNELS
        for (long c = 0; c < n; c++) pivot[c] = ck_load(T, x, c), s1[c] = s2[c] = 0;
        long row = 1;
        for (; row + 4 <= rows; row += 4) {
            const void *x0 = ck_at(T, x, row * C), *x1 = ck_at(T, x0, C), *x2 = ck_at(T, x1, C),
                       *x3 = ck_at(T, x2, C);
            CK_CHANNELS
            for (long c = 0; c < n; c++) {
                float k = pivot[c], d0 = ck_load(T, x0, c) - k, d1 = ck_load(T, x1, c) - k,
                      d2 = ck_load(T, x2, c) - k, d3 = ck_load(T, x3, c) - k;
                s1[c] += (d0 + d1) + (d2 + d3);
                s2[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
            }
        }
        for (; row < rows; row++) {
            const void *x0 = ck_at(T, x, row * C);
            CK_CHANNELS
            for (long c = 0; c < n; c++) {
                float d = ck_load(T, x0, c) - pivot[c];
                s1[c] += d;
                s2[c] += d * d;
            }
        }
        long group = tile / p->width, left = p->width - tile % p->width;
        for (long c = 0; c < n;) {
            double sum = 0, square = 0;
            for (long end = c + ck_min(left, n - c); c < end; c++) {
                double k = pivot[c], d = s1[c];
                sum += d + (double)rows * k;
                square += s2[c] + k * (2 * d + (double)rows * k);
            }
            sums[group] += sum;
            sums[p->G + group] += square;
            group++;
            left = p->width;
        }
    }
}

CK_KERNEL static void moments_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long task = begin; task < end; task++) {
        long b, first, rows;
        slab_at(p, task, &b, &first, &rows);
        CK_BY_TYPE(p->dtype, slab_moments(T, p, first, rows, p->sums + task * 2 * p->G));
    }
}

/// Combines the slabs of samples begin ..< end into means and reciprocal standard deviations.
static void statistics_body(void *context, long begin, long end) {
    const pass *p = context;
    const double count = (double)p->P * (double)p->width;
    for (long b = begin; b < end; b++) {
        for (long g = 0; g < p->G; g++) {
            double sum = 0, square = 0;
            for (long slab = 0; slab < p->slabs; slab++) {
                const double *sums = p->sums + (b * p->slabs + slab) * 2 * p->G;
                sum += sums[g];
                square += sums[p->G + g];
            }
            double mean = sum / count, variance = square / count - mean * mean;
            if (variance < 0) variance = 0;  // rounding error; NaN propagates
            p->mean[b * p->G + g] = (float)mean;
            p->rstd[b * p->G + g] = (float)(1 / sqrt(variance + (double)p->eps));
        }
    }
}

CK_INLINE void slab_normalise(ck_dtype T, int silu, const pass *p, long b, long first, long rows) {
    float mean[TILE], scale[TILE];
    for (long tile = 0; tile < p->C; tile += TILE) {
        long n = ck_min(TILE, p->C - tile);
        const float *gamma = p->gamma + tile, *beta = p->beta + tile;
        spread(p, p->mean + b * p->G, tile, n, mean);
        spread(p, p->rstd + b * p->G, tile, n, scale);
        CK_CHANNELS
        for (long c = 0; c < n; c++) scale[c] *= gamma[c];
        for (long row = first; row < first + rows; row++) {
            const void *x = ck_at(T, p->x, row * p->C + tile);
            void *y = ck_at_mutable(T, p->out, row * p->C + tile);
            CK_CHANNELS
            for (long c = 0; c < n; c++) {
                float z = (ck_load(T, x, c) - mean[c]) * scale[c] + beta[c];
                ck_store(T, y, c, silu ? z * ck_sigmoid(z) : z);
            }
        }
    }
}

CK_KERNEL static void normalise_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long task = begin; task < end; task++) {
        long b, first, rows;
        slab_at(p, task, &b, &first, &rows);
        CK_BY_TYPE_AND_FLAG(p->dtype, p->silu, slab_normalise(T, FLAG, p, b, first, rows));
    }
}

typedef void body(void *context, long begin, long end);

static void samples(void *context, long begin, long end, body *reduce, body *combine, body *finish) {
    long slabs = ((const pass *)context)->slabs;
    for (long b = begin; b < end; b++) {
        reduce(context, b * slabs, (b + 1) * slabs);
        combine(context, b, b + 1);
        finish(context, b * slabs, (b + 1) * slabs);
    }
}

static void forward_samples(void *context, long begin, long end) {
    samples(context, begin, end, moments_body, statistics_body, normalise_body);
}

/// Runs the three steps sample by sample if that keeps all threads busy, otherwise each step over all slabs.
static void run(pass *p, body *by_sample, body *reduce, body *combine, body *finish) {
    long threads = ck_threads();
    if (p->B % threads == 0 || p->B >= 4 * threads) {
        ck_parallel(p->B, ck_max(1, CK_GRAIN / ck_max(1, p->P * p->C)), by_sample, p);
    } else {
        ck_parallel(p->B * p->slabs, 1, reduce, p);
        ck_parallel(p->B, ck_max(1, CK_GRAIN / (p->slabs * p->C)), combine, p);
        ck_parallel(p->B * p->slabs, 1, finish, p);
    }
}

void ck_group_norm_forward(ck_dtype dtype, long B, long P, long C, long G, float eps, int silu, const void *x,
                           const float *gamma, const float *beta, void *y, float *mean, float *rstd,
                           void *scratch) {
    pass p = make_pass(dtype, B, P, C, G, silu);
    p.eps = eps;
    p.x = x;
    p.gamma = gamma;
    p.beta = beta;
    p.out = y;
    p.mean = mean;
    p.rstd = rstd;
    p.sums = scratch;
    run(&p, forward_samples, moments_body, statistics_body, normalise_body);
}

// MARK: backward

/// sums [2, C]: sums of gz·x̂ and of gz over one slab, where gz is the gradient before the activation.
CK_INLINE void slab_gradients(
    ck_dtype T, int silu, const pass *p, long b, long first, long rows, float *sums) {
    float mean[TILE], rstd[TILE], scale[TILE];
    for (long tile = 0; tile < p->C; tile += TILE) {
        long n = ck_min(TILE, p->C - tile), C = p->C;
        const float *gamma = p->gamma + tile, *beta = p->beta + tile;
        float *weighted = sums + tile, *plain = sums + C + tile;
        spread(p, p->mean + b * p->G, tile, n, mean);
        spread(p, p->rstd + b * p->G, tile, n, rstd);
        CK_CHANNELS
        for (long c = 0; c < n; c++) weighted[c] = plain[c] = 0, scale[c] = gamma[c] * rstd[c];
        for (long row = first; row < first + rows; row++) {
            const void *x = ck_at(T, p->x, row * C + tile), *gy = ck_at(T, p->gy, row * C + tile);
            CK_CHANNELS
            for (long c = 0; c < n; c++) {
                float d = ck_load(T, x, c) - mean[c], g = ck_load(T, gy, c);
                if (silu) g *= ck_silu_slope(d * scale[c] + beta[c]);
                weighted[c] += g * d;
                plain[c] += g;
            }
        }
        CK_CHANNELS
        for (long c = 0; c < n; c++) weighted[c] *= rstd[c];
    }
}

CK_KERNEL static void gradients_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long task = begin; task < end; task++) {
        long b, first, rows;
        slab_at(p, task, &b, &first, &rows);
        CK_BY_TYPE_AND_FLAG(p->dtype, p->silu,
                            slab_gradients(T, FLAG, p, b, first, rows, p->channels + task * 2 * p->C));
    }
}

/// Combines the slabs of samples begin ..< end: channel sums into each sample's first slab, group means into `groups`.
CK_KERNEL static void combine_body(void *context, long begin, long end) {
    const pass *p = context;
    const double count = (double)p->P * (double)p->width;
    for (long b = begin; b < end; b++) {
        float *sums = p->channels + b * p->slabs * 2 * p->C;
        for (long tile = 0; tile < 2 * p->C; tile += TILE) {
            long n = ck_min(TILE, 2 * p->C - tile);
            double total[TILE];
            for (long c = 0; c < n; c++) total[c] = 0;
            for (long slab = 0; slab < p->slabs; slab++) {
                const float *part = sums + slab * 2 * p->C + tile;
                for (long c = 0; c < n; c++) total[c] += part[c];
            }
            for (long c = 0; c < n; c++) sums[tile + c] = (float)total[c];
        }
        for (long g = 0; g < p->G; g++) {
            double weighted = 0, plain = 0;
            for (long c = g * p->width; c < (g + 1) * p->width; c++) {
                weighted += (double)p->gamma[c] * sums[c];
                plain += (double)p->gamma[c] * sums[p->C + c];
            }
            p->groups[b * 2 * p->G + g] = (float)(weighted / count);
            p->groups[b * 2 * p->G + p->G + g] = (float)(plain / count);
        }
    }
}

/// gx = rstd·(gamma·gz − mean(gamma·gz) − x̂·mean(gamma·gz·x̂)) + addend, with rstd multiplied into the factors of gz,
/// of 1 and of x − mean.
CK_INLINE void slab_backward(
    ck_dtype T, int silu, int add, const pass *p, long b, long first, long rows) {
    float mean[TILE], scale[TILE], rstd[TILE], weighted[TILE], plain[TILE];
    const float *groups = p->groups + b * 2 * p->G;
    for (long tile = 0; tile < p->C; tile += TILE) {
        long n = ck_min(TILE, p->C - tile);
        const float *gamma = p->gamma + tile, *beta = p->beta + tile;
        spread(p, p->mean + b * p->G, tile, n, mean);
        spread(p, p->rstd + b * p->G, tile, n, rstd);
        spread(p, groups, tile, n, weighted);
        spread(p, groups + p->G, tile, n, plain);
        CK_CHANNELS
        for (long c = 0; c < n; c++) {
            scale[c] = gamma[c] * rstd[c];
            plain[c] *= rstd[c];
            weighted[c] *= rstd[c] * rstd[c];
        }
        for (long row = first; row < first + rows; row++) {
            long at = row * p->C + tile;
            const void *x = ck_at(T, p->x, at), *gy = ck_at(T, p->gy, at);
            const void *addend = ck_at(T, p->addend, at);
            void *gx = ck_at_mutable(T, p->out, at);
            CK_CHANNELS
            for (long c = 0; c < n; c++) {
                float d = ck_load(T, x, c) - mean[c], g = ck_load(T, gy, c);
                if (silu) g *= ck_silu_slope(d * scale[c] + beta[c]);
                g = g * scale[c] - plain[c] - d * weighted[c];
                if (add) g += ck_load(T, addend, c);
                ck_store(T, gx, c, g);
            }
        }
    }
}

CK_KERNEL static void backward_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long task = begin; task < end; task++) {
        long b, first, rows;
        slab_at(p, task, &b, &first, &rows);
        if (p->has_addend)
            CK_BY_TYPE_AND_FLAG(p->dtype, p->silu, slab_backward(T, FLAG, 1, p, b, first, rows));
        else
            CK_BY_TYPE_AND_FLAG(p->dtype, p->silu, slab_backward(T, FLAG, 0, p, b, first, rows));
    }
}

static void backward_samples(void *context, long begin, long end) {
    samples(context, begin, end, gradients_body, combine_body, backward_body);
}

/// Sums the channel sums of all samples in order, which yields the gradients of gamma and beta.
static void parameters_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long c = begin; c < end; c++) {
        double weighted = 0, plain = 0;
        for (long b = 0; b < p->B; b++) {
            const float *sums = p->channels + b * p->slabs * 2 * p->C;
            weighted += sums[c];
            plain += sums[p->C + c];
        }
        p->ggamma[c] = (float)(weighted + (p->accumulate ? p->ggamma[c] : 0));
        p->gbeta[c] = (float)(plain + (p->accumulate ? p->gbeta[c] : 0));
    }
}

void ck_group_norm_backward(ck_dtype dtype, long B, long P, long C, long G, int silu, const void *x,
                            const float *gamma, const float *beta, const float *mean, const float *rstd,
                            const void *gy, const void *addend, void *gx, float *ggamma, float *gbeta,
                            int accumulate, void *scratch) {
    pass p = make_pass(dtype, B, P, C, G, silu);
    p.x = x;
    p.gamma = gamma;
    p.beta = beta;
    p.mean = (float *)mean;
    p.rstd = (float *)rstd;
    p.gy = gy;
    p.addend = addend;
    p.has_addend = addend != NULL;
    p.out = gx;
    p.channels = scratch;
    p.groups = p.channels + B * p.slabs * 2 * C;
    p.ggamma = ggamma;
    p.gbeta = gbeta;
    p.accumulate = accumulate;
    run(&p, backward_samples, gradients_body, combine_body, backward_body);
    if (ggamma) ck_parallel(C, ck_max(64, CK_GRAIN / ck_max(1, B)), parameters_body, &p);
}
