// Winograd's forward and backward-data: the same algorithm, with the kernel rotated by 180° in the latter. For some
// tiles at a time, V = Bᵀ·d·B of the source, M = V·U for each of the 36 positions, target = Aᵀ·M·A. U = G·g·Gᵀ is
// computed again in each call: storing it would take four times the memory of the weights.
//
// If there are many tiles, U is computed once, and each thread takes blocks of tiles whose V stays in its cache. If
// there are few, U is larger than everything else: V is computed once, and each thread takes chunks of outputs whose U
// is computed as the products need it and never leaves the cache. In both cases sums run over the inputs in the same
// order, so that the result of a sample does not depend on the batch size.
#include "winograd_plan.h"

enum {
    sourceFloats = 1 << 17,  // V of a block of tiles: half of an L2 cache
    chunkPanels = 4,         // M is stored for this many panels of 16 output channels at a time
    fewTiles = 128,
    fewFloats = 1 << 17  // U of a chunk: half of an L2 cache
};

typedef struct {
    const wino_plan *plan;
    const void *source, *addend, *weights;
    const float *bias;
    float *shared;  // many tiles: U [36][panels of outputs][inputs][16]; few: V [36][panels of inputs][rows][16]
    float *slots;
    void *target;
} call;

static int is_turned(const wino_plan *p) { return p->base.kind == CK_CONV_BACKWARD_DATA; }

// MARK: many tiles

CK_KERNEL static void weights_body(void *context, long begin, long end) {
    const call *c = context;
    const wino_plan *p = c->plan;
    long panels = p->target.panels, inputs = p->source.channels;
    for (long task = begin; task < end; task++) {
        long group = task / panels, panel = task % panels;
        CK_BY_TYPE(p->base.shape.weights,
                   wino_weight_panel(T, &p->base.shape, is_turned(p), c->weights, group * 16,
                                     ck_min(16, inputs - group * 16), panel * 16,
                                     c->shared + (panel * inputs + group * 16) * 16, panels * inputs * 16));
    }
}

CK_INLINE void tiles_block(ck_dtype T, const call *c, long first, long count, float *V, float *M, long most,
                           int pairs) {
    const wino_plan *p = c->plan;
    long inputs = p->source.channels, rows = (count + 1) / 2 * 2;
    long place = p->source.panels * rows * 16;  // floats of V at one of the 36 positions
    wino_transform_source(T, &p->source, &p->target, c->source, first, count, V, rows, place);
    for (long panel = 0; panel < p->target.panels; panel += p->panels) {
        long n = ck_min(p->panels, p->target.panels - panel), ldc = 16 * n;
        for (long xi = 0; xi < 36; xi++)
            multiply(PANELS, rows, n, inputs, V + xi * place, rows,
                     c->shared + (xi * p->target.panels + panel) * inputs * 16, inputs * 16, 0,
                     M + xi * rows * ldc, ldc, most, pairs);
        wino_transform_target(T, &p->target, M, rows * ldc, ldc, first, count, panel, n, c->bias, c->addend,
                              c->target);
    }
}

CK_KERNEL static void tiles_body(void *context, long begin, long end) {
    const call *c = context;
    const wino_plan *p = c->plan;
    long blocks = (p->target.tiles + p->rows - 1) / p->rows, most = wino_most_rows();
    int pairs = wino_takes_pairs();
    for (long slot = begin; slot < end; slot++) {
        float *V = c->slots + (size_t)slot * p->slotFloats, *M = V + 36 * p->source.panels * 16 * p->rows;
        for (long block = blocks * slot / p->slots; block < blocks * (slot + 1) / p->slots; block++) {
            long first = block * p->rows, count = ck_min(p->rows, p->target.tiles - first);
            CK_BY_TYPE(p->base.shape.dtype, tiles_block(T, c, first, count, V, M, most, pairs));
        }
    }
}

// MARK: few tiles

CK_KERNEL static void sources_body(void *context, long begin, long end) {
    const call *c = context;
    const wino_plan *p = c->plan;
    for (long group = begin; group < end; group++) {
        long first = group * groupTiles, n = ck_min(groupTiles, p->target.tiles - first);
        CK_BY_TYPE(p->base.shape.dtype,
                   wino_transform_source(T, &p->source, &p->target, c->source, first, n,
                                         c->shared + first * 16, p->rows, p->source.panels * p->rows * 16));
    }
}

CK_INLINE void outputs_chunk(ck_dtype T, const call *c, long panel, float *U, float *M, long most, int pairs) {
    const wino_plan *p = c->plan;
    long n = ck_min(p->panels, p->target.panels - panel), ldc = 16 * n, inputs = p->source.channels;
    long place = p->source.panels * p->rows * 16, weightPlace = n * p->block * 16;
    for (long first = 0; first < inputs; first += p->block) {
        long count = ck_min(p->block, inputs - first);
        for (long i = 0; i < n; i++)
            for (long k = 0; k < count; k += 16)
                CK_BY_TYPE(p->base.shape.weights,
                           wino_weight_panel(T, &p->base.shape, is_turned(p), c->weights, first + k,
                                             ck_min(16, count - k), (panel + i) * 16,
                                             U + (i * p->block + k) * 16, weightPlace));
        for (long xi = 0; xi < 36; xi++)
            multiply(PANELS, p->rows, n, count, c->shared + xi * place + first * p->rows, p->rows,
                     U + xi * weightPlace, p->block * 16, first > 0, M + xi * p->rows * ldc, ldc, most,
                     pairs);
    }
    wino_transform_target(T, &p->target, M, p->rows * ldc, ldc, 0, p->target.tiles, panel, n, c->bias,
                          c->addend, c->target);
}

CK_KERNEL static void outputs_body(void *context, long begin, long end) {
    const call *c = context;
    const wino_plan *p = c->plan;
    long chunks = (p->target.panels + p->panels - 1) / p->panels, most = wino_most_rows();
    int pairs = wino_takes_pairs();
    for (long slot = begin; slot < end; slot++) {
        float *U = c->slots + (size_t)slot * p->slotFloats, *M = U + 36 * p->panels * 16 * p->block;
        for (long chunk = chunks * slot / p->slots; chunk < chunks * (slot + 1) / p->slots; chunk++)
            CK_BY_TYPE(p->base.shape.dtype, outputs_chunk(T, c, chunk * p->panels, U, M, most, pairs));
    }
}

// MARK: calls

static void run(const wino_plan *p, const void *source, const void *weights, const float *bias,
                const void *addend, void *target, void *scratch) {
    call c = {p, source, addend, weights, bias, scratch, (float *)scratch + p->sharedFloats, target};
    if (p->few) {
        ck_parallel((p->target.tiles + groupTiles - 1) / groupTiles, 1, sources_body, &c);
        ck_parallel(p->slots, 1, outputs_body, &c);
    } else {
        ck_parallel(p->target.panels * ((p->source.channels + 15) / 16), 4, weights_body, &c);
        ck_parallel(p->slots, 1, tiles_body, &c);
    }
}

void wino_forward(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend,
                  void *y, void *scratch) {
    run((const wino_plan *)conv, x, packed, bias, addend, y, scratch);
}

void wino_backward_data(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch) {
    run((const wino_plan *)conv, gy, packed, NULL, NULL, gx, scratch);
}

void wino_plan_forward(wino_plan *p) {
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16, tiles = p->target.tiles;
    p->few = tiles <= fewTiles;
    if (p->few) {
        p->rows = (tiles + 1) / 2 * 2;
        p->panels = p->target.panels / 2 >= p->slots ? 2 : 1;
        p->block = ck_min(inputs, ck_max(16, fewFloats / (36 * 16 * p->panels) / 16 * 16));
        p->sharedFloats = (size_t)(36 * inputs * p->rows);
        p->slotFloats = (size_t)(36 * 16 * p->panels * (p->block + p->rows));
        return;
    }
    // Blocks of equal height, at least one per thread.
    long rows = ck_max(14, sourceFloats / (36 * inputs) / 14 * 14);
    long blocks = (tiles + rows - 1) / rows;
    blocks = (blocks + p->slots - 1) / p->slots * p->slots;
    p->rows = (tiles + blocks - 1) / blocks;
    p->rows = (p->rows + 1) / 2 * 2;
    p->panels = chunkPanels;
    p->sharedFloats = (size_t)(36 * p->source.channels * outputs);
    p->slotFloats = (size_t)(36 * p->rows * (inputs + ck_min(chunkPanels * 16, outputs)));
}
