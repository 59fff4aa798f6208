// The error of an image's edges, for training autoencoders.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// With e = x − target [B, H, W, C]: loss[b] = sum |e[i,j+1] − e[i,j]| + |e[i+1,j] − e[i,j]| over sample b;
/// gx = d loss/d x · weight[b]. x and gx have type `dtype`; target is fp32.
void ck_edge_error(ck_dtype dtype, long B, long H, long W, long C, const void *x, const float *target,
                   const float *weight, double *loss, void *gx);

#ifdef __cplusplus
}
#endif
