// Converts weights between PyTorch's layout and a blocked layout at memory bandwidth: a training step packs every
// weight twice and unpacks every gradient once.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Position of weight (o, c, tap) of [O, C, taps] in the packed layout: element output[o] + input[c] + tap[t]. Every
/// blocked layout has this form, also with the kernel rotated by 180° or with O and C exchanged.
typedef struct {
    long outputs, inputs, taps;
    const long *output, *input, *tap;
    size_t bytes;  // of the whole layout
    int padded;    // some positions are not occupied by weights and must be zero
} ck_weight_layout;

/// packed ← weights, cast from their type, `from`, to `dtype`.
void ck_pack_weights(const ck_weight_layout *layout, ck_dtype from, const void *weights, ck_dtype dtype,
                     void *packed);
/// weights ← packed (fp32), or weights ← weights + packed.
void ck_unpack_weights(const ck_weight_layout *layout, const float *packed, int accumulate, float *weights);

#ifdef __cplusplus
}
#endif
