// Convolution as matrix products on OpenBLAS: the portable backend, and the reference for the fast ones.
//
// Forward and backward-data share one loop: each target pixel gathers the source pixels under the kernel's taps into a
// row of `columns`, and the targets are columns times packed weights. In backward-data with a stride, the targets fall
// into stride² phases, each with its own subset of the taps, so no product is computed for zeros. Columns are created
// for some rows at a time, in each thread's part of the scratch memory. bf16 values are widened when they are gathered.
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ck_vector.h"
#include "conv_pack.h"
#include "conv_plan.h"

enum { columnsFloats = 1 << 19, leastRows = 64, mostRows = 1024 };

// The targets of one phase, and the positions of their taps in the source.
typedef struct {
    long sourceH, sourceW, channels;  // the source [B, sourceH, sourceW, channels]
    long targetH, targetW, step;      // target (i, j) reads source (i·step, j·step) + a tap's offset
    long firstH, firstW, spacing;     // target (i, j) is output pixel (firstH + i·spacing, …)
    long outputH, outputW, outputs;   // the output [B, outputH, outputW, outputs]
    long taps, *offsetH, *offsetW;
    long firstTap;  // index into the packed weights [taps of all phases, channels, outputs]
} phase;

typedef struct {
    ck_conv base;
    long phases, slots;  // slots: shares of the work, one per thread
    long rows, slotFloats;
    phase *phase;
    ck_weight_layout layout;  // of the packed weights, or of the accumulated gradient
    long *offsets, *places;   // memory of the offsets of all phases, and of the layout
} plan;

CK_INLINE void load(ck_dtype dtype, const void *source, long index, long n, float *y) {
    if (dtype == CK_F32)
        memcpy(y, (const float *)source + index, (size_t)n * sizeof *y);
    else
        for (long i = 0; i < n; i++) y[i] = ck_load(CK_BF16, source, index + i);
}

CK_INLINE void store(ck_dtype dtype, void *target, long index, long n, const float *x) {
    if (dtype == CK_F32)
        memcpy((float *)target + index, x, (size_t)n * sizeof *x);
    else
        for (long i = 0; i < n; i++) ck_store(CK_BF16, target, index + i, x[i]);
}

// A dense 1×1 kernel in fp32 needs no columns: the source already has this form.
static int source_is_columns(const phase *p, ck_dtype dtype) {
    return dtype == CK_F32 && p->taps == 1 && p->step == 1 && p->offsetH[0] == 0 && p->offsetW[0] == 0 &&
           p->targetH == p->sourceH && p->targetW == p->sourceW;
}

// columns [rows, end − begin]: elements begin..<end of the (tap, channel) row of the targets first..<first + rows.
CK_INLINE void gather(const phase *p, ck_dtype dtype, const void *source, long first, long rows, long begin,
                      long end, float *columns) {
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

// output ← columns · packed + bias + addend, for the slots' shares of the targets of one phase.
CK_KERNEL static void transform_share(void *context, long firstSlot, long endSlot) {
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
            if (t->addend && !(dense && t->addend == t->output))
                load(dtype, t->addend, first * N, rows * N, y);
            if (t->bias)
                for (long row = 0; row < rows; row++)
                    for (long n = 0; n < N; n++)
                        y[row * N + n] = t->addend ? y[row * N + n] + t->bias[n] : t->bias[n];
            float beta = t->addend || t->bias ? 1 : 0;
            if (K == 0) {
                memset(y, 0, (size_t)(rows * N) * sizeof *y);  // a phase without taps
            } else {
                const float *rowsOfColumns = columns;
                if (direct)
                    rowsOfColumns = (const float *)t->source + first * K;
                else
                    gather(p, dtype, t->source, first, rows, 0, K, columns);
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)N, (int)K, 1,
                            rowsOfColumns, (int)K, t->packed + p->firstTap * p->channels * N, (int)N, beta, y,
                            (int)N);
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

static void forward(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend,
                    void *y, void *scratch) {
    plan *plan = (void *)conv;
    transform t = {
        .plan = plan, .phase = plan->phase, .source = x, .packed = packed, .output = y, .scratch = scratch};
    if (conv->has_bias) t.bias = bias;
    if (conv->has_addend) t.addend = addend;
    ck_parallel(plan->slots, 1, transform_share, &t);
}

static void backward_data(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch) {
    plan *plan = (void *)conv;
    for (long i = 0; i < plan->phases; i++) {
        transform t = {.plan = plan,
                       .phase = plan->phase + i,
                       .source = gy,
                       .packed = packed,
                       .output = gx,
                       .scratch = scratch};
        ck_parallel(plan->slots, 1, transform_share, &t);
    }
}

CK_KERNEL static void round_share(void *packed, long begin, long end) {
    float *x = packed;
    for (long i = begin; i < end; i++) x[i] = ck_from_bits((uint32_t)ck_to_bf16(x[i]) << 16);
}

// packed [taps, channels, outputs] in fp32, rounded to bf16 if the plan is in bf16.
static void pack(ck_conv *conv, const void *weights, void *packed) {
    const plan *plan = (const void *)conv;
    ck_pack_weights(&plan->layout, conv->shape.weights, weights, CK_F32, packed);
    if (conv->shape.dtype == CK_BF16)
        ck_parallel((long)(plan->layout.bytes / sizeof(float)), CK_GRAIN, round_share, packed);
}

typedef struct {
    const plan *plan;
    const void *x, *gy;
    float *gb, *scratch;
    int accumulate;
} reduction;

// sums [O, taps·C] ← gyᵀ · columns, where each slot computes its own columns. The order of the rows does not depend on
// the number of threads.
CK_KERNEL static void reduce_share(void *context, long firstSlot, long endSlot) {
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
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)O, (int)(end - begin), (int)rows, 1,
                        left, (int)O, right, (int)stride, first ? 1 : 0, r->scratch + begin, (int)K);
        }
    }
}

// gb of output channels begin..<end. Rows are summed in blocks, so that the rounding error grows with the block and not
// with the batch.
CK_KERNEL static void sum_share(void *context, long begin, long end) {
    enum { width = 16, block = 256 };
    const reduction *r = context;
    const ck_conv_shape *s = &r->plan->base.shape;
    long rows = s->B * r->plan->phase->targetH * r->plan->phase->targetW;
    for (long o = begin; o < end; o += width) {
        long n = ck_min(width, end - o);
        double total[width] = {0};
        for (long first = 0; first < rows; first += block) {
            float sum[width] = {0}, values[width];
            for (long row = first; row < ck_min(first + block, rows); row++) {
                load(s->dtype, r->gy, row * s->O + o, n, values);
                for (long i = 0; i < n; i++) sum[i] += values[i];
            }
            for (long i = 0; i < n; i++) total[i] += sum[i];
        }
        for (long i = 0; i < n; i++) r->gb[o + i] = (r->accumulate ? r->gb[o + i] : 0) + (float)total[i];
    }
}

static void backward_weights(ck_conv *conv, const void *x, const void *gy, float *gw, float *gb,
                             int accumulate, void *scratch) {
    plan *plan = (void *)conv;
    reduction r = {plan, x, gy, gb, scratch, accumulate};
    ck_parallel(plan->slots, 1, reduce_share, &r);
    ck_unpack_weights(&plan->layout, scratch, accumulate, gw);
    if (conv->has_bias) ck_parallel(conv->shape.O, 16, sum_share, &r);
}

static const char *implementation(const ck_conv *conv) {
    const plan *plan = (const void *)conv;
    return plan->phases == 1 && source_is_columns(plan->phase, conv->shape.dtype) ? "sgemm" : "im2col+sgemm";
}

static void destroy(ck_conv *conv) {
    plan *plan = (void *)conv;
    free(plan->phase);
    free(plan->offsets);
    free(plan->places);
    free(plan);
}

static const ck_conv_methods methods = {destroy, implementation, pack,
                                        forward, backward_data,  backward_weights};

// Forward and backward-weights: one phase, whose targets are the output pixels. `tap` receives the order of the taps.
static void lay_forward(plan *plan, long *tap) {
    const ck_conv_shape *s = &plan->base.shape;
    long OH = ck_conv_output_height(s), OW = ck_conv_output_width(s), *offsets = plan->offsets;
    phase *p = plan->phase;
    *p = (phase){.sourceH = s->H,
                 .sourceW = s->W,
                 .channels = s->C,
                 .targetH = OH,
                 .targetW = OW,
                 .step = s->stride,
                 .spacing = 1,
                 .outputH = OH,
                 .outputW = OW,
                 .outputs = s->O,
                 .offsetH = offsets,
                 .offsetW = offsets + s->kernelH * s->kernelW};
    for (long kh = 0; kh < s->kernelH; kh++)
        for (long kw = 0; kw < s->kernelW; kw++) {
            p->offsetH[p->taps] = kh - s->padTop;
            p->offsetW[p->taps] = kw - s->padLeft;
            *tap++ = p->taps++;
        }
}

// Backward-data: input pixel h receives contributions from output row (h + padTop − kh)/stride for taps where it is an
// integer.
static void lay_backward(plan *plan, long *tap) {
    const ck_conv_shape *s = &plan->base.shape;
    long stride = s->stride, firstTap = 0;
    for (long ph = 0; ph < stride; ph++)
        for (long pw = 0; pw < stride; pw++) {
            phase *p = plan->phase + ph * stride + pw;
            long h0 = ((ph - s->padTop) % stride + stride) % stride;
            long w0 = ((pw - s->padLeft) % stride + stride) % stride;
            long *offsets = plan->offsets + firstTap;
            *p = (phase){.sourceH = ck_conv_output_height(s),
                         .sourceW = ck_conv_output_width(s),
                         .channels = s->O,
                         .targetH = s->H > h0 ? (s->H - h0 + stride - 1) / stride : 0,
                         .targetW = s->W > w0 ? (s->W - w0 + stride - 1) / stride : 0,
                         .step = 1,
                         .firstH = h0,
                         .firstW = w0,
                         .spacing = stride,
                         .outputH = s->H,
                         .outputW = s->W,
                         .outputs = s->C,
                         .offsetH = offsets,
                         .offsetW = offsets + s->kernelH * s->kernelW,
                         .firstTap = firstTap};
            for (long kh = ph; kh < s->kernelH; kh += stride)
                for (long kw = pw; kw < s->kernelW; kw += stride) {
                    p->offsetH[p->taps] = (h0 + s->padTop - kh) / stride;
                    p->offsetW[p->taps] = (w0 + s->padLeft - kw) / stride;
                    tap[kh * s->kernelW + kw] = firstTap + p->taps++;
                }
            firstTap += p->taps;
        }
}

// Packed weights are [taps, C, O], or [taps, O, C] for backward-data; their gradient is [O, taps, C].
static void lay_weights(plan *plan) {
    const ck_conv_shape *s = &plan->base.shape;
    ck_conv_kind kind = plan->base.kind;
    long taps = s->kernelH * s->kernelW, *output = plan->places, *input = output + s->O, *tap = input + s->C;
    for (long o = 0; o < s->O; o++)
        output[o] = o * (kind == CK_CONV_FORWARD ? 1 : kind == CK_CONV_BACKWARD_DATA ? s->C : taps * s->C);
    for (long c = 0; c < s->C; c++) input[c] = c * (kind == CK_CONV_FORWARD ? s->O : 1);
    for (long t = 0; t < taps; t++) tap[t] *= kind == CK_CONV_BACKWARD_WEIGHTS ? s->C : s->C * s->O;
    size_t bytes = (size_t)(s->O * s->C * taps) * sizeof(float);
    plan->layout = (ck_weight_layout){s->O, s->C, taps, output, input, tap, bytes, 0};
}

ck_conv *ck_conv_create_openblas(ck_conv_kind kind, const ck_conv_shape *shape, int has_bias, int has_addend,
                                 char *error, size_t error_size) {
    plan *plan = calloc(1, sizeof *plan);
    long taps = shape->kernelH * shape->kernelW;
    if (plan) {
        plan->base = (ck_conv){&methods, *shape, kind, has_bias, has_addend, 0, 0};
        plan->phases = kind == CK_CONV_BACKWARD_DATA ? shape->stride * shape->stride : 1;
        plan->phase = calloc((size_t)plan->phases, sizeof *plan->phase);
        plan->offsets = calloc((size_t)(2 * taps), sizeof *plan->offsets);
        plan->places = calloc((size_t)(shape->O + shape->C + taps), sizeof *plan->places);
    }
    if (!plan || !plan->phase || !plan->offsets || !plan->places) {
        if (plan) destroy(&plan->base);
        snprintf(error, error_size, "convolution: no memory left for a plan");
        return NULL;
    }
    if (kind == CK_CONV_BACKWARD_DATA)
        lay_backward(plan, plan->places + shape->O + shape->C);
    else
        lay_forward(plan, plan->places + shape->O + shape->C);
    lay_weights(plan);

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
    // A row of columns and its row of results. Slots are whole cache lines to avoid false sharing.
    plan->slotFloats = (plan->rows * (K + N) + 15) / 16 * 16;
    plan->base.scratch_bytes = (size_t)(plan->slots * plan->slotFloats) * sizeof(float);
    if (kind == CK_CONV_BACKWARD_WEIGHTS)
        plan->base.scratch_bytes += plan->layout.bytes;
    else
        plan->base.packed_bytes = plan->layout.bytes;
    return &plan->base;
}
