// Definitions shared by the convolution backends: a plan is this header followed by the backend's own state.
#pragma once
#include "ck_conv.h"

#ifdef __cplusplus
extern "C" {
#endif

/// The operations of a backend; the arguments are those of ck_conv.h.
typedef struct {
    void (*destroy)(ck_conv *conv);
    const char *(*implementation)(const ck_conv *conv);
    void (*pack)(ck_conv *conv, const void *weights, void *packed);
    void (*forward)(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend,
                    void *y, void *scratch);
    void (*backward_data)(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch);
    void (*backward_weights)(ck_conv *conv, const void *x, const void *gy, float *gw, float *gb,
                             int accumulate, void *scratch);
} ck_conv_methods;

struct ck_conv {
    const ck_conv_methods *methods;
    ck_conv_shape shape;
    ck_conv_kind kind;
    int has_bias, has_addend;
    size_t scratch_bytes, packed_bytes;
};

/// Output height and width.
static inline long ck_conv_output_height(const ck_conv_shape *s) {
    return (s->H + s->padTop + s->padBottom - s->kernelH) / s->stride + 1;
}
static inline long ck_conv_output_width(const ck_conv_shape *s) {
    return (s->W + s->padLeft + s->padRight - s->kernelW) / s->stride + 1;
}

/// Whether the shape allows Winograd convolution, and whether Winograd is the fastest algorithm, on this processor.
int ck_conv_can_winograd(const ck_conv_shape *shape);
int ck_conv_prefers_winograd(ck_conv_kind kind, const ck_conv_shape *shape);
/// Constructors of the backends, for a shape that has been checked. They return NULL with a message in `error` if
/// memory is insufficient.
ck_conv *ck_conv_create_winograd(ck_conv_kind kind, const ck_conv_shape *shape, int has_bias, int has_addend,
                                 char *error, size_t error_size);
ck_conv *ck_conv_create_openblas(ck_conv_kind kind, const ck_conv_shape *shape, int has_bias, int has_addend,
                                 char *error, size_t error_size);
/// Falls back to the OpenBLAS plan if oneDNN has no vectorized implementation of the shape on this processor.
ck_conv *ck_conv_create_onednn(ck_conv_kind kind, const ck_conv_shape *shape, int has_bias, int has_addend,
                               char *error, size_t error_size);
const char *ck_conv_describe_onednn(void);

#ifdef __cplusplus
}
#endif
