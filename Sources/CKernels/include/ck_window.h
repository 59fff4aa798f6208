// Pooling, ReLU and resizing for networks that are only evaluated: fp32 NHWC, forward only.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// y [B, OH, OW, C] = max over 3×3 windows, OH = (H + 2·padding − 3)/stride + 1; padding 0 or 1.
void ck_max_pool3(long B, long H, long W, long C, long stride, long padding, const float *x, float *y);
/// y [B, H, W, C] = mean over 3×3 windows, counting only pixels inside the image (torch's count_include_pad=False).
void ck_mean_pool3(long B, long H, long W, long C, const float *x, float *y);
/// y [B, C] = mean over the pixels.
void ck_image_mean(long B, long H, long W, long C, const float *x, float *y);

/// y = max(x, 0); y may be x.
void ck_relu(long n, const float *x, float *y);
/// y [rows, total] from column `start` = max(part [rows, width], 0)
void ck_place_columns_relu(long rows, long total, long start, long width, const float *part, float *y);

/// y [B, OH, OW, C] = scale·bilinear(x [B, H, W, C]) + shift, as torch's interpolate with align_corners=False.
void ck_resize_bilinear(long B, long H, long W, long C, long OH, long OW, float scale, float shift,
                        const float *x, float *y);

#ifdef __cplusplus
}
#endif
