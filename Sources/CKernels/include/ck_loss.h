// Losses with their gradients in one pass. Sums are computed per sample in double precision.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// For sample b: loss[b] = sum over its n elements of (x − target)²; gx = 2·(x − target)·weight[b]. x and gx have type
/// `dtype`; target is fp32. weight may be NULL (1). gx may be NULL.
void ck_squared_error(ck_dtype dtype, long B, long n, const void *x, const float *target, const float *weight,
                      double *loss, void *gx);
/// The same with |x − target|; gx = sign(x − target)·weight[b].
void ck_absolute_error(ck_dtype dtype, long B, long n, const void *x, const float *target,
                       const float *weight, double *loss, void *gx);

/// The diagonal Gaussian of an autoencoder (Kingma and Welling, 2014). moments [B, P, 2C] = (mean, logvar), with logvar
/// clamped to [−30, 20] as in diffusers. z [B, P, C] = mean + exp(logvar/2)·noise; noise is fp32 [B, P, C], or NULL:
/// z = mean.
void ck_gaussian_sample_forward(
    ck_dtype dtype, long B, long P, long C, const void *moments, const float *noise, void *z);
/// kl[b] = ½·sum(mean² + exp(logvar) − 1 − logvar), unweighted;
/// gmoments = (gz + klWeight·mean, gz·noise·exp(logvar/2)/2 + klWeight·(exp(logvar) − 1)/2).
void ck_gaussian_sample_backward(ck_dtype dtype, long B, long P, long C, const void *moments,
                                 const float *noise, const void *gz, float klWeight, void *gmoments);
void ck_gaussian_kl(ck_dtype dtype, long B, long P, long C, const void *moments, double *kl);

#ifdef __cplusplus
}
#endif
