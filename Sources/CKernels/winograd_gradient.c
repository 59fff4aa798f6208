// Winograd's backward-weights, the transpose of the forward pass: Y = A·gy·Aᵀ, S = Yᵀ·V summed over all tiles,
// gw = Gᵀ·S·G.
//
// If there are many tiles, S of all weights is kept while blocks of tiles are added to it. If all tiles fit into one
// block, S is computed for one chunk of weights at a time and never leaves the cache.
#include "winograd_plan.h"

enum {
    gradientTiles = 256,  // tiles per block, for which V and Y are stored
    fewOutputs = 56,      // outputs per chunk: four register blocks
    fewPanels = 4
};

typedef struct {
    const wino_plan *plan;
    const void *x, *gy;
    float *gw, *gb;
    int accumulate;
    long first, count;  // the tiles of the current block
    float *V, *Y, *S;   // [36][panels of x][count][16], [36][count][outputs], [36][outputs][inputs] or slots
    float *biases;      // [groups of tiles][outputs]
} call;

static long groups_of(long tiles) { return (tiles + groupTiles - 1) / groupTiles; }

CK_KERNEL static void transforms_body(void *context, long begin, long end) {
    const call *c = context;
    const wino_plan *p = c->plan;
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16;
    for (long group = begin; group < end; group++) {
        long first = group * groupTiles, n = ck_min(groupTiles, c->count - first);
        float *biases = c->biases + ((c->first + first) / groupTiles) * outputs;
        CK_BY_TYPE(p->base.shape.dtype, {
            wino_transform_source(T, &p->source, &p->target, c->x, c->first + first, n, c->V + first * 16,
                                  c->count, inputs * c->count);
            wino_transform_gradient(T, &p->target, c->gy, c->first + first, n, c->Y + first * outputs,
                                    c->count * outputs, c->gb ? biases : NULL);
        });
    }
}

// MARK: many tiles

/// S of `block` outputs and all inputs at one of the 36 positions += the sum over the current tiles.
CK_KERNEL static void sums_body(void *context, long begin, long end) {
    const call *c = context;
    const wino_plan *p = c->plan;
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16, most = wino_most_rows();
    long strips = (outputs + p->block - 1) / p->block;
    int pairs = wino_takes_pairs();
    for (long task = begin; task < end; task++) {
        long xi = task / strips, strip = task % strips;
        long o = outputs / 2 * strip / strips * 2, rows = outputs / 2 * (strip + 1) / strips * 2 - o;
        multiply(ROWS, rows, p->source.panels, c->count, c->Y + xi * c->count * outputs + o, outputs,
                 c->V + xi * inputs * c->count, c->count * 16, c->first > 0,
                 c->S + (xi * outputs + o) * inputs, inputs, most, pairs);
    }
}

/// gw of outputs o ..< o + rows and n panels of inputs from S [36][rows][16·n].
CK_INLINE void store_gradients(const call *c, const float *S, long place, long ldc, long o, long rows,
                               long panel, long n) {
    const ck_conv_shape *s = &c->plan->base.shape;
    for (long row = 0; row < rows && o + row < s->O; row++)
        for (long i = 0; i < n; i++) {
            long input = (panel + i) * 16;
            wino_weight_gradient(S + row * ldc + 16 * i, place, ck_min(16, s->C - input), c->accumulate,
                                 c->gw + ((o + row) * s->C + input) * 9);
        }
}

CK_KERNEL static void gradients_body(void *context, long begin, long end) {
    const call *c = context;
    long inputs = c->plan->source.panels * 16, outputs = c->plan->target.panels * 16;
    store_gradients(c, c->S + begin * inputs, outputs * inputs, inputs, begin, end - begin, 0,
                    c->plan->source.panels);
}

// MARK: few tiles

CK_KERNEL static void chunks_body(void *context, long begin, long end) {
    const call *c = context;
    const wino_plan *p = c->plan;
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16, most = wino_most_rows();
    long across = (p->source.panels + p->panels - 1) / p->panels, strips = (outputs + p->block - 1) / p->block;
    int pairs = wino_takes_pairs();
    for (long slot = begin; slot < end; slot++) {
        float *S = c->S + (size_t)slot * p->slotFloats;
        long chunks = strips * across;
        for (long chunk = chunks * slot / p->slots; chunk < chunks * (slot + 1) / p->slots; chunk++) {
            long strip = chunk / across, panel = chunk % across * p->panels;
            long n = ck_min(p->panels, p->source.panels - panel), ldc = 16 * n;
            long o = outputs / 2 * strip / strips * 2, rows = outputs / 2 * (strip + 1) / strips * 2 - o;
            for (long xi = 0; xi < 36; xi++)
                multiply(ROWS, rows, n, c->count, c->Y + xi * c->count * outputs + o, outputs,
                         c->V + (xi * inputs + panel * 16) * c->count, c->count * 16, 0, S + xi * rows * ldc,
                         ldc, most, pairs);
            store_gradients(c, S, rows * ldc, ldc, o, rows, panel, n);
        }
    }
}

// MARK: calls

void wino_backward_weights(ck_conv *conv, const void *x, const void *gy, float *gw, float *gb, int accumulate,
                           void *scratch) {
    const wino_plan *p = (const wino_plan *)conv;
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16, tiles = p->target.tiles;
    call c = {.plan = p, .x = x, .gy = gy, .gw = gw, .gb = gb, .accumulate = accumulate};
    c.V = scratch;
    c.Y = c.V + 36 * inputs * p->rows;
    c.biases = c.Y + 36 * outputs * p->rows;
    c.S = (float *)scratch + p->sharedFloats;
    for (c.first = 0; c.first < tiles; c.first += p->rows) {
        c.count = ck_min(p->rows, tiles - c.first);
        ck_parallel(groups_of(c.count), 1, transforms_body, &c);
        if (!p->few) ck_parallel(36 * ((outputs + p->block - 1) / p->block), 1, sums_body, &c);
    }
    if (p->few) {
        c.first = 0;
        ck_parallel(p->slots, 1, chunks_body, &c);
    } else {
        ck_parallel(p->base.shape.O, 8, gradients_body, &c);
    }
    if (!gb) return;
    for (long o = 0; o < p->base.shape.O; o++) {
        double sum = accumulate ? gb[o] : 0;
        for (long group = 0; group < groups_of(tiles); group++) sum += c.biases[group * outputs + o];
        gb[o] = (float)sum;
    }
}

void wino_plan_gradient(wino_plan *p) {
    long inputs = p->source.panels * 16, outputs = p->target.panels * 16, tiles = p->target.tiles;
    p->few = tiles <= gradientTiles;
    p->rows = ck_min(gradientTiles, tiles);
    p->sharedFloats = (size_t)(36 * p->rows * (inputs + outputs) + groups_of(tiles) * outputs);
    p->sharedFloats = (p->sharedFloats + 15) / 16 * 16;
    if (p->few) {
        p->panels = ck_min(fewPanels, p->source.panels);
        p->block = ck_min(fewOutputs, outputs);
        p->slotFloats = (size_t)(36 * p->block * 16 * p->panels);
    } else {
        p->block = 28;  // two register blocks
        p->slots = 1;
        p->slotFloats = (size_t)(36 * inputs * outputs);
    }
}
