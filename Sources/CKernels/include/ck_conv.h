// Convolution, NHWC: our own Winograd kernels, direct convolution on oneDNN, or im2col on OpenBLAS (the portable
// reference). A plan is created once per shape and kept: it contains the primitive and its layouts. Weights are given
// as OIHW in fp32 (PyTorch's layout, and that of the flat store) or bf16, and are packed and cast when they have
// changed. A linear layer is a 1×1 convolution.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    long B, H, W, C;  // input [B, H, W, C]
    long O, kernelH, kernelW, stride;
    long padTop, padLeft, padBottom, padRight;  // output height = (H + padTop + padBottom − kernelH)/stride + 1
    ck_dtype dtype;                             // type of activations and packed weights
    ck_dtype weights;                           // type of the given weights
} ck_conv_shape;

typedef enum { CK_CONV_FORWARD = 0, CK_CONV_BACKWARD_DATA = 1, CK_CONV_BACKWARD_WEIGHTS = 2 } ck_conv_kind;
/// CK_WINOGRAD uses Winograd wherever it is possible, CK_FASTEST where it is the fastest. Other shapes use oneDNN, or
/// OpenBLAS if the program is built without oneDNN.
typedef enum { CK_OPENBLAS = 0, CK_ONEDNN = 1, CK_WINOGRAD = 2, CK_FASTEST = 3 } ck_backend;

typedef struct ck_conv ck_conv;

/// 1 if the program was built with the backend.
int ck_backend_available(ck_backend backend);
/// Writes the version and the selected instruction set to `text`, e.g. "oneDNN 2.6.3, avx512_core_bf16".
void ck_backend_description(ck_backend backend, char *text, size_t size);

/// Returns NULL on failure, with a one-line message in `error`. `has_addend`: a forward plan that adds to its output.
ck_conv *ck_conv_create(ck_backend backend, ck_conv_kind kind, const ck_conv_shape *shape, int has_bias,
                        int has_addend, char *error, size_t error_size);
void ck_conv_destroy(ck_conv *conv);
/// The implementation's name, e.g. "jit_bf16:avx512_core_bf16" or "im2col+sgemm".
const char *ck_conv_implementation(const ck_conv *conv);
/// Size in bytes of the scratch memory for a call (64-byte aligned; contents are not preserved between calls).
size_t ck_conv_scratch_bytes(const ck_conv *conv);
/// Size in bytes of packed weights (forward and backward-data plans); 0 if the plan uses the weights without packing.
size_t ck_conv_packed_bytes(const ck_conv *conv);
/// packed ← weights [O, C, kernelH, kernelW]. A plan without packing takes the weights themselves as `packed`.
void ck_conv_pack(ck_conv *conv, const void *weights, void *packed);

/// y [B, OH, OW, O] = x * weights + bias + addend. bias is fp32 [O], or NULL if the plan has none.
void ck_conv_forward(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend,
                     void *y, void *scratch);
/// gx [B, H, W, C]
void ck_conv_backward_data(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch);
/// gw fp32 [O, C, kernelH, kernelW] and gb fp32 [O] (NULL without bias): overwritten, or added to if `accumulate` is
/// set.
void ck_conv_backward_weights(
    ck_conv *conv, const void *x, const void *gy, float *gw, float *gb, int accumulate, void *scratch);

#ifdef __cplusplus
}
#endif
