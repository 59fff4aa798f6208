// Operations that move elements: upsampling, concatenation, layout.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// y [B, 2H, 2W, C] = nearest(x [B, H, W, C])
void ck_upsample_forward(ck_dtype dtype, long B, long H, long W, long C, const void *x, void *y);
/// gx [B, H, W, C] = sum of gy's 2×2 blocks + addend
void ck_upsample_backward(
    ck_dtype dtype, long B, long H, long W, long C, const void *gy, const void *addend, void *gx);

/// y [B, H/2, W/2, C] = mean of x's 2×2 blocks (average pooling, for blocks without a strided convolution)
void ck_average_pool_forward(ck_dtype dtype, long B, long H, long W, long C, const void *x, void *y);
void ck_average_pool_backward(
    ck_dtype dtype, long B, long H, long W, long C, const void *gy, const void *addend, void *gx);

/// y [rows, A + B] = (a [rows, A], b [rows, B])
void ck_concat_forward(ck_dtype dtype, long rows, long A, long B, const void *a, const void *b, void *y);
/// part [rows, width] = y [rows, total] from column `start`, + addend
void ck_slice_columns(ck_dtype dtype, long rows, long total, long start, long width, const void *y,
                      const void *addend, void *part);
/// y [rows, total] from column `start` = part [rows, width]
void ck_place_columns(
    ck_dtype dtype, long rows, long total, long start, long width, const void *part, void *y);

/// fp32 [B, C, H, W] ↔ [B, H, W, C] of any type; files are NCHW, like those of diffusers.
void ck_nchw_to_nhwc(ck_dtype to, long B, long C, long H, long W, const float *x, void *y);
void ck_nhwc_to_nchw(ck_dtype from, long B, long C, long H, long W, const void *x, float *y);

/// index[r] = argmin_k ‖x[r] − codebook[k]‖²; x [rows, D], codebook [K, D], fp32. Ties select the first code.
void ck_nearest_code(long rows, long K, long D, const float *x, const float *codebook, int32_t *index);

#ifdef __cplusplus
}
#endif
