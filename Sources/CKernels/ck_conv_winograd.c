// 3×3 convolution of stride 1 by Winograd's F(4×4, 3×3): 36 products where direct convolution has 144, in fp32
// whatever the activations are. Transforms read and write NHWC directly, tile by tile, and leave their results in
// the order in which the products want them.
//
// Forward and backward-data are one pass, the kernel turned round in the latter: for some tiles at a time,
// V = Bᵀ·d·B of the source, M = V·U for each of the 36 places, y = Aᵀ·M·A. U = G·g·Gᵀ is made anew in each call: kept,
// it would take four times the memory of the weights. Backward-weights transposes that: Y = A·gy·Aᵀ, S = Yᵀ·V summed
// over all tiles, gw = Gᵀ·S·G.
#include <stdio.h>
#include <stdlib.h>

#include "conv_plan.h"
#include "winograd_product.h"
#include "winograd_tiles.h"

enum {
    sourceFloats = 1 << 17,  // V of a block of tiles: half of a second-level cache
    chunkPanels = 4,         // 16 output channels each whose M is at hand at a time
    gradientTiles = 128,     // whose V and Y are at hand in backward-weights
    usualBatch = 16
};

typedef struct {
    ck_conv base;
    wino_images source, target;  // of the pass: x and y, or gy and gx; in backward-weights x and gy
    long rows;                   // tiles of a block
    long slots;                  // shares of the work, one a thread
    long strips;                 // of backward-weights: how many parts the outputs are cut into
    size_t weightFloats, slotFloats;
} plan;

// How many rows and panels of a product the registers hold.
static long most_rows(void) { return ck_vector_bits() >= 512 ? 14 : 6; }
static int takes_pairs(void) { return ck_vector_bits() >= 512; }

// MARK: forward and backward-data

typedef struct {
    const plan *plan;
    const void *source, *addend;
    const float *weights, *bias;
    float *U, *slots;  // U [36][panels of outputs][inputs][16]
    void *target;
} forward_call;

CK_KERNEL static void weights_body(void *context, long begin, long end) {
    const forward_call *call = context;
    const plan *p = call->plan;
    const ck_conv_shape *s = &p->base.shape;
    int turned = p->base.kind == CK_CONV_BACKWARD_DATA;
    long panels = p->target.panels, inputs = p->source.channels;
    for (long task = begin; task < end; task++) {
        long group = task / panels, panel = task % panels;
        wino_weight_panel(s, turned, call->weights, group * 16, ck_min(16, inputs - group * 16), panel * 16,
                          call->U + (panel * inputs + group * 16) * 16, panels * inputs * 16);
    }
}

CK_INLINE void forward_block(ck_dtype T, const forward_call *call, long first, long count, float *V,
                             float *M, long most, int pairs) {
    const plan *p = call->plan;
    long inputs = p->source.channels, rows = (count + 1) / 2 * 2;
    long place = p->source.panels * rows * 16;  // floats of V at one of the 36 places
    wino_transform_source(T, &p->source, &p->target, call->source, first, count, V, rows, place);
    for (long panel = 0; panel < p->target.panels; panel += chunkPanels) {
        long n = ck_min(chunkPanels, p->target.panels - panel), ldc = 16 * n;
        for (long xi = 0; xi < 36; xi++)
            multiply(PANELS, rows, n, inputs, V + xi * place, rows,
                     call->U + (xi * p->target.panels + panel) * inputs * 16, inputs * 16, 0,
                     M + xi * rows * ldc, ldc, most, pairs);
        wino_transform_target(T, &p->target, M, rows * ldc, ldc, first, count, panel, n, call->bias,
                              call->addend, call->target);
    }
}

CK_KERNEL static void forward_body(void *context, long begin, long end) {
    const forward_call *call = context;
    const plan *p = call->plan;
    long blocks = (p->target.tiles + p->rows - 1) / p->rows, most = most_rows();
    int pairs = takes_pairs();
    for (long slot = begin; slot < end; slot++) {
        float *V = call->slots + (size_t)slot * p->slotFloats, *M = V + 36 * p->source.panels * 16 * p->rows;
        for (long block = blocks * slot / p->slots; block < blocks * (slot + 1) / p->slots; block++) {
            long first = block * p->rows, count = ck_min(p->rows, p->target.tiles - first);
            CK_BY_TYPE(p->base.shape.dtype, forward_block(T, call, first, count, V, M, most, pairs));
        }
    }
}

static void run_forward(const plan *p, const void *source, const float *weights, const float *bias,
                        const void *addend, void *target, void *scratch) {
    forward_call call = {p, source, addend, weights, bias, scratch, (float *)scratch + p->weightFloats,
                         target};
    long tasks = p->target.panels * ((p->source.channels + 15) / 16);
    ck_parallel(tasks, 4, weights_body, &call);
    ck_parallel(p->slots, 1, forward_body, &call);
}

static void forward(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend,
                    void *y, void *scratch) {
    run_forward((const plan *)conv, x, packed, bias, addend, y, scratch);
}

static void backward_data(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch) {
    run_forward((const plan *)conv, gy, packed, NULL, NULL, gx, scratch);
}

// MARK: backward-weights

typedef struct {
    const plan *plan;
    const void *x, *gy;
    float *gw, *gb;
    int accumulate;
    long first, count;  // the tiles at hand
    float *V, *Y, *S;   // [36][panels of x][count][16], [36][count][outputs], [36][outputs][inputs]
    float *biases;      // [groups of tiles][outputs]
} gradient_call;

enum { groupTiles = 8 };  // whose transforms are one task

CK_KERNEL static void transforms_body(void *context, long begin, long end) {
    const gradient_call *call = context;
    const plan *p = call->plan;
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16;
    for (long group = begin; group < end; group++) {
        long first = group * groupTiles, n = ck_min(groupTiles, call->count - first);
        float *biases = call->biases + ((call->first + first) / groupTiles) * outputs;
        CK_BY_TYPE(p->base.shape.dtype, {
            wino_transform_source(T, &p->source, &p->target, call->x, call->first + first, n,
                                  call->V + first * 16, call->count, inputs * call->count);
            wino_transform_gradient(T, &p->target, call->gy, call->first + first, n, call->Y + first * outputs,
                                    call->count * outputs, call->gb ? biases : NULL);
        });
    }
}

CK_KERNEL static void sums_body(void *context, long begin, long end) {
    const gradient_call *call = context;
    const plan *p = call->plan;
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16, most = most_rows();
    int pairs = takes_pairs();
    for (long task = begin; task < end; task++) {
        long xi = task / p->strips, strip = task % p->strips;
        long o = outputs / 2 * strip / p->strips * 2, rows = outputs / 2 * (strip + 1) / p->strips * 2 - o;
        multiply(ROWS, rows, p->source.panels, call->count, call->Y + xi * call->count * outputs + o, outputs,
                 call->V + xi * inputs * call->count, call->count * 16, call->first > 0,
                 call->S + (xi * outputs + o) * inputs, inputs, most, pairs);
    }
}

CK_KERNEL static void gradients_body(void *context, long begin, long end) {
    const gradient_call *call = context;
    const plan *p = call->plan;
    const ck_conv_shape *s = &p->base.shape;
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16;
    for (long o = begin; o < end; o++)
        for (long c = 0; c < s->C; c += 16)
            wino_weight_gradient(call->S + o * inputs + c, outputs * inputs, ck_min(16, s->C - c),
                                 call->accumulate, call->gw + (o * s->C + c) * 9);
}

static void backward_weights(ck_conv *conv, const void *x, const void *gy, float *gw, float *gb,
                             int accumulate, void *scratch) {
    const plan *p = (const plan *)conv;
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16, tiles = p->target.tiles;
    gradient_call call = {.plan = p, .x = x, .gy = gy, .gw = gw, .gb = gb, .accumulate = accumulate};
    call.S = scratch;
    call.V = call.S + 36 * inputs * outputs;
    call.Y = call.V + 36 * inputs * p->rows;
    call.biases = call.Y + 36 * outputs * p->rows;
    for (call.first = 0; call.first < tiles; call.first += p->rows) {
        call.count = ck_min(p->rows, tiles - call.first);
        ck_parallel((call.count + groupTiles - 1) / groupTiles, 1, transforms_body, &call);
        ck_parallel(36 * p->strips, 1, sums_body, &call);
    }
    ck_parallel(p->base.shape.O, 8, gradients_body, &call);
    if (!gb) return;
    for (long o = 0; o < p->base.shape.O; o++) {
        double sum = accumulate ? gb[o] : 0;
        for (long group = 0; group < (tiles + groupTiles - 1) / groupTiles; group++)
            sum += call.biases[group * outputs + o];
        gb[o] = (float)sum;
    }
}

// MARK: plans

static void destroy(ck_conv *conv) { free(conv); }
static const char *implementation(const ck_conv *conv) {
    (void)conv;
    return "winograd 4x4";
}
/// Weights are taken as they are: see `ck_conv_packed_bytes`.
static void pack(ck_conv *conv, const float *weights, void *packed) { (void)conv, (void)weights, (void)packed; }

static const ck_conv_methods methods = {destroy, implementation, pack, forward, backward_data, backward_weights};

int ck_conv_can_winograd(const ck_conv_shape *s) {
    return s->kernelH == 3 && s->kernelW == 3 && s->stride == 1 && s->padTop <= 2 && s->padLeft <= 2 &&
           s->padBottom <= 2 && s->padRight <= 2 && ck_vector_bits() >= 256;
}

/// Compares the times of both ways, in multiply-adds of direct fp32 convolution, measured with oneDNN 2.6.3 on Zen 4:
/// the transforms cost by tile and channel, and by pair of channels. A rule and not a race at start-up, so that a
/// resumed run computes as the first one did; and it asks for a usual batch, not for the one at hand, so that a sample
/// does not depend on how many others are computed with it.
int ck_conv_prefers_winograd(const ck_conv_shape *s) {
    if (!ck_conv_can_winograd(s)) return 0;
    long OH = ck_conv_output_height(s), OW = ck_conv_output_width(s);
    double direct = 9.0 * (double)(usualBatch * OH * OW) * (double)s->C * (double)s->O;
    if (s->dtype == CK_BF16) direct *= ck_bf16_cost();
    double tiles = (double)(usualBatch * ((OH + 3) / 4) * ((OW + 3) / 4));
    double inputs = (double)((s->C + 15) / 16 * 16), outputs = (double)((s->O + 15) / 16 * 16);
    double products = 36 * tiles * inputs * outputs;
    double transforms = tiles * (1000 * inputs + 750 * outputs) + 750 * inputs * outputs;
    return products + transforms < direct;
}

ck_conv *ck_conv_create_winograd(ck_conv_kind kind, const ck_conv_shape *s, int has_bias, int has_addend,
                                 char *error, size_t error_size) {
    plan *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(error, error_size, "convolution: no memory left for a plan");
        return NULL;
    }
    p->base = (ck_conv){&methods, *s, kind, has_bias, has_addend, 0, 0};
    long OH = ck_conv_output_height(s), OW = ck_conv_output_width(s);
    if (kind == CK_CONV_BACKWARD_DATA) {
        p->source = wino_images_of(s->B, OH, OW, s->O, 2 - s->padTop, 2 - s->padLeft);
        p->target = wino_images_of(s->B, s->H, s->W, s->C, 0, 0);
    } else {
        p->source = wino_images_of(s->B, s->H, s->W, s->C, s->padTop, s->padLeft);
        p->target = wino_images_of(s->B, OH, OW, s->O, 0, 0);
    }
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16, tiles = p->target.tiles;
    p->slots = ck_threads();
    if (kind == CK_CONV_BACKWARD_WEIGHTS) {
        p->rows = ck_min(gradientTiles, tiles);
        p->strips = (outputs + 27) / 28;  // two blocks of registers high
        long groups = (tiles + groupTiles - 1) / groupTiles;
        p->base.scratch_bytes =
            sizeof(float) * (size_t)(36 * inputs * outputs + 36 * p->rows * (inputs + outputs) + groups * outputs);
        return &p->base;
    }
    // Blocks of equal height, one at least for each thread.
    long rows = ck_max(14, sourceFloats / (36 * inputs) / 14 * 14);
    long blocks = (tiles + rows - 1) / rows;
    blocks = (blocks + p->slots - 1) / p->slots * p->slots;
    p->rows = (tiles + blocks - 1) / blocks;
    p->rows = (p->rows + 1) / 2 * 2;
    p->weightFloats = (size_t)(36 * p->source.channels * outputs);
    p->slotFloats = (size_t)(36 * p->rows * (inputs + ck_min(chunkPanels * 16, outputs)));
    p->base.scratch_bytes = sizeof(float) * (p->weightFloats + (size_t)p->slots * p->slotFloats);
    return &p->base;
}
