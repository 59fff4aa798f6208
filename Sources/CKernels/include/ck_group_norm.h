// GroupNorm over NHWC, optionally with fused SiLU (Wu and He, 2018).
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Size in bytes of the fp32 scratch memory, sufficient for both passes.
size_t ck_group_norm_scratch_bytes(long B, long P, long C, long G);

/// y = act(gamma·(x − mean)·rstd + beta); x, y are [B, P, C]; mean, rstd are [B, G] and are outputs.
void ck_group_norm_forward(ck_dtype dtype, long B, long P, long C, long G, float eps, int silu, const void *x,
                           const float *gamma, const float *beta, void *y, float *mean, float *rstd,
                           void *scratch);

/// gx = d loss/d x + addend; ggamma, gbeta [C] are overwritten, or added to if `accumulate` is set; either both or
/// neither of them are NULL.
void ck_group_norm_backward(ck_dtype dtype, long B, long P, long C, long G, int silu, const void *x,
                            const float *gamma, const float *beta, const float *mean, const float *rstd,
                            const void *gy, const void *addend, void *gx, float *ggamma, float *gbeta,
                            int accumulate, void *scratch);

#ifdef __cplusplus
}
#endif
