// Convolution as matrix products on OpenBLAS: the portable backend, and the reference for the fast one.
//
// Forward and backward-data are one loop: each target pixel gathers the source pixels under the kernel's taps into a
// row of `columns`, and columns times packed weights are the targets. In backward-data with a stride, targets fall
// into stride² phases, each seeing its own subset of the taps; so no product is spent on zeros.
// Columns are made for some rows at a time, in each thread's part of the scratch. bf16 is widened on the way in.
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ck_parallel.h"
#include "conv_plan.h"

enum { columnsFloats = 1 << 19, leastRows = 64, mostRows = 1024 };

// The targets of one phase, and where their taps lie in the source.
typedef struct {
    long sourceH, sourceW, channels;    // the source [B, sourceH, sourceW, channels]
    long targetH, targetW, step;        // target (i, j) looks at source (i·step, j·step) + a tap's offset
    long firstH, firstW, spacing;       // target (i, j) is the output's pixel (firstH + i·spacing, …)
    long outputH, outputW, outputs;     // the output [B, outputH, outputW, outputs]
    long taps, *kernelH, *kernelW, *offsetH, *offsetW;  // each tap's place in the kernel, and in the source
    long firstTap;                      // of the packed weights [taps of all phases, channels, outputs]
} phase;

typedef struct {
    ck_conv base;
    long phases, slots;  // slots: shares of the work, one a thread
    long rows, slotFloats;
    phase *phase;
    long *offsets;
} plan;

static inline float widen(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Rounds to nearest, ties to even; a NaN stays one.
static inline uint16_t narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

static void load(ck_dtype dtype, const void *source, long index, long n, float *y) {
    if (dtype == CK_F32) {
        memcpy(y, (const float *)source + index, (size_t)n * sizeof *y);
        return;
    }
    const uint16_t *x = (const uint16_t *)source + index;
    for (long i = 0; i < n; i++) y[i] = widen(x[i]);
}

static void store(ck_dtype dtype, void *target, long index, long n, const float *x) {
    if (dtype == CK_F32) {
        memcpy((float *)target + index, x, (size_t)n * sizeof *x);
        return;
    }
    uint16_t *y = (uint16_t *)target + index;
    for (long i = 0; i < n; i++) y[i] = narrow(x[i]);
}

// A dense 1×1 kernel in fp32 needs no columns: the source is them.
static int source_is_columns(const phase *p, ck_dtype dtype) {
    return dtype == CK_F32 && p->taps == 1 && p->step == 1 && p->offsetH[0] == 0 && p->offsetW[0] == 0 &&
           p->targetH == p->sourceH && p->targetW == p->sourceW;
}

// columns [rows, end − begin]: elements begin..<end of each target's (tap, channel) row, for targets first..<first + rows.
static void gather(const phase *p, ck_dtype dtype, const void *source, long first, long rows, long begin, long end,
                   float *columns) {
    long C = p->channels, width = end - begin;
    for (long row = 0; row < rows; row++) {
        long target = first + row, j = target % p->targetW, i = target / p->targetW % p->targetH;
        long image = target / (p->targetW * p->targetH);
        float *out = columns + row * width;
        for (long tap = begin / C; tap * C < end; tap++) {
            long from = tap * C < begin ? begin - tap * C : 0, to = (tap + 1) * C > end ? end - tap * C : C;
            long h = i * p->step + p->offsetH[tap], w = j * p->step + p->offsetW[tap];
            if (h < 0 || h >= p->sourceH || w < 0 || w >= p->sourceW)
                memset(out, 0, (size_t)(to - from) * sizeof *out);
            else
                load(dtype, source, ((image * p->sourceH + h) * p->sourceW + w) * C + from, to - from, out);
            out += to - from;
        }
    }
}

typedef struct {
    const plan *plan;
    const phase *phase;
    const void *source, *addend;
    const float *packed, *bias;
    void *output;
    float *scratch;
} transform;

// output ← columns · packed + bias + addend, for the slots' shares of one phase's targets.
static void transform_share(void *context, long firstSlot, long endSlot) {
    const transform *t = context;
    const plan *plan = t->plan;
    const phase *p = t->phase;
    ck_dtype dtype = plan->base.shape.dtype;
    long N = p->outputs, K = p->taps * p->channels, targets = plan->base.shape.B * p->targetH * p->targetW;
    int direct = source_is_columns(p, dtype), dense = dtype == CK_F32 && p->spacing == 1;
    for (long slot = firstSlot; slot < endSlot; slot++) {
        float *columns = t->scratch + slot * plan->slotFloats, *tile = columns + plan->rows * K;
        long end = targets * (slot + 1) / plan->slots;
        for (long first = targets * slot / plan->slots; first < end; first += plan->rows) {
            long rows = end - first < plan->rows ? end - first : plan->rows;
            float *y = dense ? (float *)t->output + first * N : tile;
            if (t->addend && !(dense && t->addend == t->output)) load(dtype, t->addend, first * N, rows * N, y);
            if (t->bias)
                for (long row = 0; row < rows; row++)
                    for (long n = 0; n < N; n++) y[row * N + n] = t->addend ? y[row * N + n] + t->bias[n] : t->bias[n];
            float beta = t->addend || t->bias ? 1 : 0;
            if (K == 0) {
                memset(y, 0, (size_t)(rows * N) * sizeof *y);  // a phase that no tap reaches
            } else {
                const float *rowsOfColumns = columns;
                if (direct)
                    rowsOfColumns = (const float *)t->source + first * K;
                else
                    gather(p, dtype, t->source, first, rows, 0, K, columns);
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)N, (int)K, 1, rowsOfColumns,
                            (int)K, t->packed + p->firstTap * p->channels * N, (int)N, beta, y, (int)N);
            }
            if (dense) continue;
            if (p->spacing == 1) {
                store(dtype, t->output, first * N, rows * N, tile);
                continue;
            }
            for (long row = 0; row < rows; row++) {
                long target = first + row, j = target % p->targetW, i = target / p->targetW % p->targetH;
                long image = target / (p->targetW * p->targetH);
                long h = p->firstH + i * p->spacing, w = p->firstW + j * p->spacing;
                store(dtype, t->output, ((image * p->outputH + h) * p->outputW + w) * N, N, tile + row * N);
            }
        }
    }
}

static void forward(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend, void *y,
                    void *scratch) {
    plan *plan = (void *)conv;
    transform t = {plan, plan->phase, x,       conv->has_addend ? addend : NULL, packed, conv->has_bias ? bias : NULL,
                   y,    scratch};
    ck_parallel(plan->slots, 1, transform_share, &t);
}

static void backward_data(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch) {
    plan *plan = (void *)conv;
    for (long i = 0; i < plan->phases; i++) {
        transform t = {plan, plan->phase + i, gy, NULL, packed, NULL, gx, scratch};
        ck_parallel(plan->slots, 1, transform_share, &t);
    }
}

typedef struct {
    const plan *plan;
    const float *weights;
    float *packed;
} packing;

// packed [taps, channels, outputs] fp32, with bf16's values where the plan is in bf16; for outputs begin..<end.
// A cache line of outputs at a time: then the weights of each are read through once.
static void pack_share(void *context, long begin, long end) {
    const packing *k = context;
    const ck_conv_shape *s = &k->plan->base.shape;
    int forward = k->plan->base.kind == CK_CONV_FORWARD;
    long area = s->kernelH * s->kernelW, outputs = forward ? s->O : s->C, channels = forward ? s->C : s->O;
    for (long first = begin; first < end; first += 16)
        for (long channel = 0; channel < channels; channel++)
            for (const phase *p = k->plan->phase; p < k->plan->phase + k->plan->phases; p++)
                for (long tap = 0; tap < p->taps; tap++) {
                    const float *place = k->weights + p->kernelH[tap] * s->kernelW + p->kernelW[tap];
                    float *y = k->packed + ((p->firstTap + tap) * channels + channel) * outputs;
                    for (long n = first; n < first + 16 && n < end; n++) {
                        float w = place[(forward ? n * s->C + channel : channel * s->C + n) * area];
                        y[n] = s->dtype == CK_BF16 ? widen(narrow(w)) : w;
                    }
                }
}

static void pack(ck_conv *conv, const float *weights, void *packed) {
    packing k = {(void *)conv, weights, packed};
    ck_parallel(k.plan->phase->outputs, 16, pack_share, &k);
}

typedef struct {
    const plan *plan;
    const void *x, *gy;
    float *gw, *gb, *scratch;
    int accumulate;
} reduction;

// sums [O, taps·C] ← gyᵀ · columns, each slot its own columns. The rows' order is the same for any number of threads.
static void reduce_share(void *context, long firstSlot, long endSlot) {
    const reduction *r = context;
    const plan *plan = r->plan;
    const ck_conv_shape *s = &plan->base.shape;
    const phase *p = plan->phase;
    long O = s->O, K = p->taps * p->channels, targets = s->B * p->targetH * p->targetW;
    for (long slot = firstSlot; slot < endSlot; slot++) {
        long begin = K * slot / plan->slots, end = K * (slot + 1) / plan->slots;
        if (begin == end) continue;
        float *columns = r->scratch + O * K + slot * plan->slotFloats;
        float *widened = columns + plan->rows * ((K + plan->slots - 1) / plan->slots);
        for (long first = 0; first < targets; first += plan->rows) {
            long rows = targets - first < plan->rows ? targets - first : plan->rows, stride = end - begin;
            const float *left = widened, *right = columns;
            if (s->dtype == CK_F32)
                left = (const float *)r->gy + first * O;
            else
                load(s->dtype, r->gy, first * O, rows * O, widened);
            if (source_is_columns(p, s->dtype)) {
                right = (const float *)r->x + first * K + begin;
                stride = K;
            } else {
                gather(p, s->dtype, r->x, first, rows, begin, end, columns);
            }
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)O, (int)(end - begin), (int)rows, 1, left, (int)O,
                        right, (int)stride, first ? 1 : 0, r->scratch + begin, (int)K);
        }
    }
}

// gw, gb of output channels begin..<end.
static void write_share(void *context, long begin, long end) {
    const reduction *r = context;
    const ck_conv_shape *s = &r->plan->base.shape;
    const phase *p = r->plan->phase;
    long O = s->O, C = s->C, taps = p->taps, rows = s->B * p->targetH * p->targetW;
    for (long o = begin; o < end; o++) {
        float *y = r->gw + o * C * taps;
        const float *x = r->scratch + o * C * taps;
        for (long c = 0; c < C; c++)
            for (long tap = 0; tap < taps; tap++)
                y[c * taps + tap] = (r->accumulate ? y[c * taps + tap] : 0) + x[tap * C + c];
    }
    if (!r->gb) return;
    // Rows are summed in blocks, so that rounding grows with the block and not with the batch.
    enum { width = 16, block = 256 };
    for (long o = begin; o < end; o += width) {
        long n = end - o < width ? end - o : width;
        double total[width] = {0};
        for (long first = 0; first < rows; first += block) {
            float sum[width] = {0}, values[width];
            for (long row = first; row < rows && row < first + block; row++) {
                load(s->dtype, r->gy, row * O + o, n, values);
                for (long i = 0; i < n; i++) sum[i] += values[i];
            }
            for (long i = 0; i < n; i++) total[i] += sum[i];
        }
        for (long i = 0; i < n; i++) r->gb[o + i] = (r->accumulate ? r->gb[o + i] : 0) + (float)total[i];
    }
}

static void backward_weights(ck_conv *conv, const void *x, const void *gy, float *gw, float *gb, int accumulate,
                             void *scratch) {
    plan *plan = (void *)conv;
    reduction r = {plan, x, gy, gw, conv->has_bias ? gb : NULL, scratch, accumulate};
    ck_parallel(plan->slots, 1, reduce_share, &r);
    ck_parallel(conv->shape.O, 16, write_share, &r);
}

static const char *implementation(const ck_conv *conv) {
    const plan *plan = (const void *)conv;
    return plan->phases == 1 && source_is_columns(plan->phase, conv->shape.dtype) ? "sgemm" : "im2col+sgemm";
}

static void destroy(ck_conv *conv) {
    plan *plan = (void *)conv;
    free(plan->phase);
    free(plan->offsets);
    free(plan);
}

static const ck_conv_methods methods = {destroy, implementation, pack, forward, backward_data, backward_weights};

// Forward and backward-weights: one phase, whose targets are the output's pixels.
static void lay_forward(plan *plan) {
    const ck_conv_shape *s = &plan->base.shape;
    long taps = s->kernelH * s->kernelW, *places = plan->offsets;
    long OH = ck_conv_output_height(s), OW = ck_conv_output_width(s);
    phase *p = plan->phase;
    *p = (phase){s->H, s->W, s->C, OH, OW, s->stride, 0, 0, 1, OH, OW, s->O, taps,
                 places, places + taps, places + 2 * taps, places + 3 * taps, 0};
    for (long kh = 0; kh < s->kernelH; kh++)
        for (long kw = 0; kw < s->kernelW; kw++) {
            long tap = kh * s->kernelW + kw;
            p->kernelH[tap] = kh;
            p->kernelW[tap] = kw;
            p->offsetH[tap] = kh - s->padTop;
            p->offsetW[tap] = kw - s->padLeft;
        }
}

// Backward-data: input pixel h is reached from output row (h + padTop − kh)/stride by the taps that divide.
static void lay_backward(plan *plan) {
    const ck_conv_shape *s = &plan->base.shape;
    long all = s->kernelH * s->kernelW, stride = s->stride, firstTap = 0;
    for (long ph = 0; ph < stride; ph++)
        for (long pw = 0; pw < stride; pw++) {
            phase *p = plan->phase + ph * stride + pw;
            long h0 = ((ph - s->padTop) % stride + stride) % stride, w0 = ((pw - s->padLeft) % stride + stride) % stride;
            long *places = plan->offsets + firstTap;
            *p = (phase){ck_conv_output_height(s), ck_conv_output_width(s), s->O,
                         s->H > h0 ? (s->H - h0 + stride - 1) / stride : 0,
                         s->W > w0 ? (s->W - w0 + stride - 1) / stride : 0, 1, h0, w0, stride, s->H, s->W, s->C, 0,
                         places, places + all, places + 2 * all, places + 3 * all, firstTap};
            for (long kh = ph; kh < s->kernelH; kh += stride)
                for (long kw = pw; kw < s->kernelW; kw += stride) {
                    long tap = p->taps++;
                    p->kernelH[tap] = kh;
                    p->kernelW[tap] = kw;
                    p->offsetH[tap] = (h0 + s->padTop - kh) / stride;
                    p->offsetW[tap] = (w0 + s->padLeft - kw) / stride;
                }
            firstTap += p->taps;
        }
}

ck_conv *ck_conv_create_openblas(ck_conv_kind kind, const ck_conv_shape *shape, int has_bias, int has_addend,
                                 char *error, size_t error_size) {
    plan *plan = calloc(1, sizeof *plan);
    long taps = shape->kernelH * shape->kernelW;
    if (plan) {
        plan->base = (ck_conv){&methods, *shape, kind, has_bias, has_addend, 0, 0};
        plan->phases = kind == CK_CONV_BACKWARD_DATA ? shape->stride * shape->stride : 1;
        plan->phase = calloc((size_t)plan->phases, sizeof *plan->phase);
        plan->offsets = calloc((size_t)(4 * taps), sizeof *plan->offsets);
    }
    if (!plan || !plan->phase || !plan->offsets) {
        if (plan) destroy(&plan->base);
        snprintf(error, error_size, "convolution: no memory left for a plan");
        return NULL;
    }
    if (kind == CK_CONV_BACKWARD_DATA)
        lay_backward(plan);
    else
        lay_forward(plan);

    long K = 0, N = kind == CK_CONV_BACKWARD_DATA ? shape->C : shape->O, targets = 0;
    for (long i = 0; i < plan->phases; i++) {
        const phase *p = plan->phase + i;
        if (p->taps * p->channels > K) K = p->taps * p->channels;
        if (p->targetH * p->targetW > targets) targets = p->targetH * p->targetW;
    }
    targets *= shape->B;
    plan->slots = ck_threads();
    if (kind == CK_CONV_BACKWARD_WEIGHTS) K = (K + plan->slots - 1) / plan->slots;
    plan->rows = columnsFloats / (K > 0 ? K : 1);
    if (plan->rows < leastRows) plan->rows = leastRows;
    if (plan->rows > mostRows) plan->rows = mostRows;
    if (plan->rows > targets) plan->rows = targets;
    // A row of columns and its row of results; the slots are kept apart by whole cache lines.
    plan->slotFloats = (plan->rows * (K + N) + 15) / 16 * 16;
    plan->base.scratch_bytes = (size_t)(plan->slots * plan->slotFloats) * sizeof(float);
    if (kind == CK_CONV_BACKWARD_WEIGHTS)
        plan->base.scratch_bytes += (size_t)(shape->O * shape->C * taps) * sizeof(float);
    else
        plan->base.packed_bytes = (size_t)(shape->O * shape->C * taps) * sizeof(float);
    return &plan->base;
}
