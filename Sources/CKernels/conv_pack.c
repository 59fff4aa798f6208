// Blocked layouts store 8 or more output (or input) channels next to each other: the lanes. In [O, C, taps] the lanes
// are far apart and the taps are adjacent, so both directions are transpositions.
#include "conv_pack.h"

#include "conv_transpose.h"

typedef uint32_t bits8 __attribute__((vector_size(32)));

enum {
    lanes = 8,
    rowsAtMost = 16,      // maximum channels of a tile in addition to its lanes
    tileFloats = 1 << 12  // maximum of rows · taps · lanes in a tile
};

/// ck_to_bf16 of 8 numbers; each result is in the upper half of its lane.
CK_INLINE void narrow8(const float *x, bits8 *y) {
    bits8 bits;
    memcpy(&bits, x, sizeof bits);
    bits8 rounded = bits + 0x7fff + ((bits >> 16) & 1), isNaN = (bits8)((bits & 0x7fffffff) > 0x7f800000);
    *y = ((rounded & ~isNaN) | ((bits | 0x400000) & isNaN)) & 0xffff0000;
}

typedef struct {
    const ck_weight_layout *layout;
    ck_dtype from, dtype;
    const void *weights;
    void *packed;
    float *gradient;
    int accumulate;
    // Lanes are output channels (or input channels), and rows are the others. `place` is the offset of each channel in
    // the packed layout.
    int lanesAreOutputs;
    const long *lanePlace, *rowPlace;
    // Source: distance between lanes and between rows in [O, C, taps].
    long laneStride, rowStride;
} packing;

/// The distance between the 8 lanes from `lane` in the packed layout, or 0 if it is not constant.
CK_INLINE long lane_step(const packing *k, long lane) {
    const long *place = k->lanePlace + lane;
    long step = place[1] - place[0];
    for (int l = 2; l < lanes; l++)
        if (place[l] - place[l - 1] != step) return 0;
    return step;
}

/// packed ← tile [rows, taps, 8], for the given first row and lane.
CK_INLINE void write_tile(const packing *k, long row, long rows, long lane, const float *tile) {
    long taps = k->layout->taps;
    const long *place = k->rowPlace + row, *tap = k->layout->tap;
    long start = k->lanePlace[lane], step = lane_step(k, lane);
    if (k->dtype == CK_F32) {
        float *packed = k->packed;
        for (long r = 0; r < rows; r++)
            for (long t = 0; t < taps; t++) {
                const float *x = tile + (r * taps + t) * lanes;
                float *y = packed + place[r] + tap[t];
                if (step == 1)
                    memcpy(y + start, x, lanes * sizeof *x);
                else
                    for (long l = 0; l < lanes; l++) y[k->lanePlace[lane + l]] = x[l];
            }
        return;
    }
    uint16_t *packed = k->packed;
    for (long r = 0; r < rows; r++) {
        if (step == 2 && r + 1 < rows && place[r + 1] == place[r] + 1) {
            // bf16 layouts interleave pairs of rows, as the processor's dot product instructions require.
            for (long t = 0; t < taps; t++) {
                const float *even = tile + (r * taps + t) * lanes, *odd = even + taps * lanes;
                bits8 low, pairs;
                narrow8(even, &low);
                narrow8(odd, &pairs);
                pairs |= low >> 16;
                memcpy(packed + start + place[r] + tap[t], &pairs, sizeof pairs);
            }
            r++;
            continue;
        }
        for (long t = 0; t < taps; t++) {
            const float *x = tile + (r * taps + t) * lanes;
            uint16_t *y = packed + place[r] + tap[t];
            for (long l = 0; l < lanes; l++) y[k->lanePlace[lane + l]] = ck_to_bf16(x[l]);
        }
    }
}

/// tile [rows, taps, 8] ← packed fp32.
CK_INLINE void read_tile(const packing *k, long row, long rows, long lane, float *tile) {
    long taps = k->layout->taps, step = lane_step(k, lane);
    const float *packed = k->packed;
    for (long r = 0; r < rows; r++)
        for (long t = 0; t < taps; t++) {
            const float *x = packed + k->rowPlace[row + r] + k->layout->tap[t];
            float *y = tile + (r * taps + t) * lanes;
            if (step == 1)
                memcpy(y, x + k->lanePlace[lane], lanes * sizeof *y);
            else
                for (long l = 0; l < lanes; l++) y[l] = x[k->lanePlace[lane + l]];
        }
}

/// Copies the weights that no tile covers, one by one.
CK_INLINE void move_rest(ck_dtype from, const packing *k, long row, long rows, long lane, long laneEnd) {
    for (long r = row; r < row + rows; r++)
        for (long l = lane; l < laneEnd; l++)
            for (long t = 0; t < k->layout->taps; t++) {
                long place = k->rowPlace[r] + k->lanePlace[l] + k->layout->tap[t];
                long index = r * k->rowStride + l * k->laneStride + t;
                if (k->gradient)
                    k->gradient[index] =
                        (k->accumulate ? k->gradient[index] : 0) + ((float *)k->packed)[place];
                else if (k->dtype == CK_F32)
                    ((float *)k->packed)[place] = ck_load(from, k->weights, index);
                else
                    ((uint16_t *)k->packed)[place] = ck_to_bf16(ck_load(from, k->weights, index));
            }
}

CK_INLINE void move_tile(ck_dtype from, const packing *k, long row, long rows, long lane) {
    float tile[tileFloats] __attribute__((aligned(64)));
    long taps = k->layout->taps, at = row * k->rowStride + lane * k->laneStride;
    // If the lanes are output channels, the rows and taps of a lane are contiguous in memory.
    long runs = k->lanesAreOutputs ? 1 : rows, length = k->lanesAreOutputs ? rows * taps : taps;
    if (k->gradient) {
        read_tile(k, row, rows, lane, tile);
        for (long run = 0; run < runs; run++)
            transpose_out(tile + run * taps * lanes, lanes, k->laneStride, length, k->accumulate,
                          k->gradient + at + run * k->rowStride);
        return;
    }
    for (long run = 0; run < runs; run++)
        transpose_in(from, k->weights, at + run * k->rowStride, k->laneStride, length,
                     tile + run * taps * lanes, lanes);
    write_tile(k, row, rows, lane, tile);
}

// Processes output channels begin..<end, tile by tile. Outputs are the outer loop, so that [O, C, taps] is read once,
// in order.
CK_INLINE void move_outputs(ck_dtype from, const packing *k, long begin, long end) {
    long rowsOfTile = ck_max(2, ck_min(rowsAtMost, tileFloats / lanes / k->layout->taps & ~1L));
    int fits = rowsOfTile * k->layout->taps * lanes <= tileFloats;
    long outputStep = k->lanesAreOutputs ? lanes : rowsOfTile;
    long inputStep = k->lanesAreOutputs ? rowsOfTile : lanes;
    for (long o = begin; o < end; o += outputStep)
        for (long c = 0; c < k->layout->inputs; c += inputStep) {
            long outputs = ck_min(outputStep, end - o), inputs = ck_min(inputStep, k->layout->inputs - c);
            long row = k->lanesAreOutputs ? c : o, rows = k->lanesAreOutputs ? inputs : outputs;
            long lane = k->lanesAreOutputs ? o : c, width = k->lanesAreOutputs ? outputs : inputs;
            if (fits && width == lanes)
                move_tile(from, k, row, rows, lane);
            else
                move_rest(from, k, row, rows, lane, lane + width);
        }
}

CK_KERNEL static void move_share(void *context, long begin, long end) {
    const packing *k = context;
    CK_BY_TYPE(k->from, move_outputs(T, k, begin, end));
}

static void move(packing k) {
    const ck_weight_layout *layout = k.layout;
    // Use the channels that are closer together as lanes.
    long o = ck_min(lanes, layout->outputs) - 1, c = ck_min(lanes, layout->inputs) - 1;
    k.lanesAreOutputs = c < lanes - 1 || (o == lanes - 1 && layout->output[o] - layout->output[0] <=
                                                                layout->input[c] - layout->input[0]);
    k.lanePlace = k.lanesAreOutputs ? layout->output : layout->input;
    k.rowPlace = k.lanesAreOutputs ? layout->input : layout->output;
    long run = layout->inputs * layout->taps;
    k.laneStride = k.lanesAreOutputs ? run : layout->taps;
    k.rowStride = k.lanesAreOutputs ? layout->taps : run;
    ck_parallel(layout->outputs, 16, move_share, &k);
}

void ck_pack_weights(const ck_weight_layout *layout, ck_dtype from, const void *weights, ck_dtype dtype,
                     void *packed) {
    if (layout->padded) memset(packed, 0, layout->bytes);
    move((packing){.layout = layout, .from = from, .dtype = dtype, .weights = weights, .packed = packed});
}

void ck_unpack_weights(const ck_weight_layout *layout, const float *packed, int accumulate, float *weights) {
    move(
        (packing){.layout = layout, .packed = (void *)packed, .gradient = weights, .accumulate = accumulate});
}
