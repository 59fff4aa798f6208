// Weights on their way between PyTorch's layout and a blocked one, as fast as memory allows: a training step
// packs every weight twice and brings every gradient back once.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Where weight (o, c, tap) of [O, C, taps] lies in the packed layout: element output[o] + input[c] + tap[t].
/// Every blocked layout is such a sum; so is one with the kernel turned round, or with O and C exchanged.
typedef struct {
    long outputs, inputs, taps;
    const long *output, *input, *tap;
    size_t bytes;  // of the whole layout
    int padded;    // some of it is no weight's place, and must be zero
} ck_weight_layout;

/// packed ← weights, cast from their type, `from`, to `dtype`.
void ck_pack_weights(const ck_weight_layout *layout, ck_dtype from, const void *weights, ck_dtype dtype,
                     void *packed);
/// weights ← packed (fp32), or weights ← weights + packed.
void ck_unpack_weights(const ck_weight_layout *layout, const float *packed, int accumulate, float *weights);

#ifdef __cplusplus
}
#endif
