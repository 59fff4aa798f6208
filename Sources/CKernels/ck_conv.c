// The entry points of convolution: they check the shape once and dispatch every call to the plan's backend.
#include "conv_plan.h"

#include <limits.h>
#include <stdio.h>

#include "ck_gemm.h"

int ck_backend_available(ck_backend backend) {
#ifdef DISTTRAIN_ONEDNN
    if (backend == CK_ONEDNN) return 1;
#endif
    return backend == CK_OPENBLAS || backend == CK_FASTEST ||
           (backend == CK_WINOGRAD && ck_vector_bits() >= 256);
}

void ck_backend_description(ck_backend backend, char *text, size_t size) {
#ifdef DISTTRAIN_ONEDNN
    const char *direct = ck_conv_describe_onednn(), *others = direct;
#else
    const char *direct = "oneDNN (not built in)", *others = "im2col on OpenBLAS";
#endif
    if (backend == CK_ONEDNN)
        snprintf(text, size, "%s", direct);
    else if (backend == CK_OPENBLAS)
        snprintf(text, size, "OpenBLAS, %s kernels", ck_gemm_kernels());
    else if (ck_vector_bits() < 256)
        snprintf(text, size, "%s", others);
    else
        snprintf(text, size, "Winograd 4x4 on %s; %s", ck_vector_bits() == 512 ? "AVX-512" : "AVX2", others);
}

// Returns 1, or 0 with a message in `error` if the shape is invalid.
static int shape_is_valid(const ck_conv_shape *s, char *error, size_t error_size) {
    if (s->B < 1 || s->H < 1 || s->W < 1 || s->C < 1 || s->O < 1) {
        snprintf(error, error_size,
                 "convolution: found B %ld, H %ld, W %ld, C %ld, O %ld, expected 1 or more of each", s->B,
                 s->H, s->W, s->C, s->O);
        return 0;
    }
    if (s->kernelH < 1 || s->kernelW < 1 || s->stride < 1) {
        snprintf(error, error_size,
                 "convolution: found kernel %ldx%ld and stride %ld, expected 1 or more of each", s->kernelH,
                 s->kernelW, s->stride);
        return 0;
    }
    if (s->padTop < 0 || s->padLeft < 0 || s->padBottom < 0 || s->padRight < 0) {
        snprintf(error, error_size, "convolution: found padding (%ld, %ld, %ld, %ld), expected none below 0",
                 s->padTop, s->padLeft, s->padBottom, s->padRight);
        return 0;
    }
    if (s->H + s->padTop + s->padBottom < s->kernelH || s->W + s->padLeft + s->padRight < s->kernelW) {
        snprintf(error, error_size, "convolution: the kernel %ldx%ld is larger than the padded input %ldx%ld",
                 s->kernelH, s->kernelW, s->H + s->padTop + s->padBottom, s->W + s->padLeft + s->padRight);
        return 0;
    }
    // OpenBLAS dimensions are int.
    if (s->kernelH * s->kernelW > INT_MAX / s->C || s->kernelH * s->kernelW > INT_MAX / s->O) {
        snprintf(error, error_size,
                 "convolution: %ld input and %ld output channels under a %ldx%ld kernel are too many", s->C,
                 s->O, s->kernelH, s->kernelW);
        return 0;
    }
    if ((s->dtype != CK_F32 && s->dtype != CK_BF16) || (s->weights != CK_F32 && s->weights != CK_BF16)) {
        snprintf(error, error_size, "convolution: unknown element types %d and %d", (int)s->dtype, (int)s->weights);
        return 0;
    }
    return 1;
}

ck_conv *ck_conv_create(ck_backend backend, ck_conv_kind kind, const ck_conv_shape *shape, int has_bias,
                        int has_addend, char *error, size_t error_size) {
    char unread[1];
    if (!error || !error_size) error = unread, error_size = sizeof unread;
    error[0] = 0;
    if (!shape_is_valid(shape, error, error_size)) return NULL;
    if (kind == CK_CONV_BACKWARD_DATA)
        has_bias = 0;  // only the forward pass and the weight gradient use the bias
    if (kind != CK_CONV_FORWARD) has_addend = 0;
    if (backend == CK_FASTEST || backend == CK_WINOGRAD) {
        if (backend == CK_WINOGRAD ? ck_conv_can_winograd(shape) : ck_conv_prefers_winograd(kind, shape))
            return ck_conv_create_winograd(kind, shape, has_bias, has_addend, error, error_size);
#ifdef DISTTRAIN_ONEDNN
        backend = CK_ONEDNN;
#else
        backend = CK_OPENBLAS;
#endif
    }
    if (backend == CK_OPENBLAS)
        return ck_conv_create_openblas(kind, shape, has_bias, has_addend, error, error_size);
#ifdef DISTTRAIN_ONEDNN
    if (backend == CK_ONEDNN)
        return ck_conv_create_onednn(kind, shape, has_bias, has_addend, error, error_size);
#endif
    snprintf(error, error_size, "convolution: this program was built without the %s backend",
             backend == CK_ONEDNN ? "oneDNN" : "requested");
    return NULL;
}

void ck_conv_destroy(ck_conv *conv) {
    if (conv) conv->methods->destroy(conv);
}
const char *ck_conv_implementation(const ck_conv *conv) { return conv->methods->implementation(conv); }
size_t ck_conv_scratch_bytes(const ck_conv *conv) { return conv->scratch_bytes; }
size_t ck_conv_packed_bytes(const ck_conv *conv) { return conv->packed_bytes; }

void ck_conv_pack(ck_conv *conv, const void *weights, void *packed) {
    conv->methods->pack(conv, weights, packed);
}
void ck_conv_forward(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend,
                     void *y, void *scratch) {
    conv->methods->forward(conv, x, packed, bias, addend, y, scratch);
}
void ck_conv_backward_data(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch) {
    conv->methods->backward_data(conv, gy, packed, gx, scratch);
}
void ck_conv_backward_weights(ck_conv *conv, const void *x, const void *gy, float *gw, float *gb,
                              int accumulate, void *scratch) {
    conv->methods->backward_weights(conv, x, gy, gw, gb, accumulate, scratch);
}
