// 3×3 convolution with stride 1 by Winograd's F(4×4, 3×3): 36 products instead of 144 for direct convolution, always
// computed in fp32. Transforms read and write NHWC directly, tile by tile, and store their results in the order that
// the products require. This file contains the plans and the rule that decides when Winograd is faster.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "winograd_plan.h"

enum { usualBatch = 16 };

static void destroy(ck_conv *conv) { free(conv); }
static const char *implementation(const ck_conv *conv) {
    (void)conv;
    return "winograd 4x4";
}
/// Weights are used without packing: see `ck_conv_packed_bytes`.
static void pack(ck_conv *conv, const void *weights, void *packed) { (void)conv, (void)weights, (void)packed; }

static const ck_conv_methods methods = {destroy,      implementation,     pack,
                                        wino_forward, wino_backward_data, wino_backward_weights};

int ck_conv_can_winograd(const ck_conv_shape *s) {
    return s->kernelH == 3 && s->kernelW == 3 && s->stride == 1 && s->padTop <= 2 && s->padLeft <= 2 &&
           s->padBottom <= 2 && s->padRight <= 2 && ck_vector_bits() >= 256;
}

/// Compares the times of Winograd and direct convolution, in multiply-adds of direct fp32 convolution, as measured with
/// oneDNN 2.6.3 on Zen 4. The transforms cost time per tile and channel, and per pair of channels; oneDNN's bf16
/// kernels for activations skip the taps that fall on padding. This is a fixed rule instead of a benchmark at startup,
/// so that a resumed run computes the same results as the original run. It assumes a usual batch instead of the actual
/// one, so that the result of a sample does not depend on the batch size.
int ck_conv_prefers_winograd(ck_conv_kind kind, const ck_conv_shape *s) {
    if (!ck_conv_can_winograd(s)) return 0;
    double OH = (double)ck_conv_output_height(s), OW = (double)ck_conv_output_width(s);
    double direct = 9 * usualBatch * OH * OW * (double)s->C * (double)s->O;
    if (s->dtype == CK_BF16) {
        direct *= ck_bf16_cost();
        if (kind != CK_CONV_BACKWARD_WEIGHTS)
            direct *= (1 - (double)(s->padTop + s->padBottom) / (3 * OH)) *
                      (1 - (double)(s->padLeft + s->padRight) / (3 * OW));
    }
    double tiles = usualBatch * ceil(OH / 4) * ceil(OW / 4);
    double inputs = (double)((s->C + 15) / 16 * 16), outputs = (double)((s->O + 15) / 16 * 16);
    double products = 36 * tiles * inputs * outputs;
    double transforms = tiles * (1000 * inputs + 750 * outputs) + 450 * inputs * outputs;
    return products + transforms < direct;
}

ck_conv *ck_conv_create_winograd(ck_conv_kind kind, const ck_conv_shape *s, int has_bias, int has_addend,
                                 char *error, size_t error_size) {
    wino_plan *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(error, error_size, "convolution: no memory left for a plan");
        return NULL;
    }
    p->base = (ck_conv){&methods, *s, kind, has_bias, has_addend, 0, 0};
    long OH = ck_conv_output_height(s), OW = ck_conv_output_width(s);
    if (kind == CK_CONV_BACKWARD_DATA) {
        p->source = wino_images_of(s->B, OH, OW, s->O, 2 - s->padTop, 2 - s->padLeft);
        p->target = wino_images_of(s->B, s->H, s->W, s->C, 0, 0);
    } else {
        p->source = wino_images_of(s->B, s->H, s->W, s->C, s->padTop, s->padLeft);
        p->target = wino_images_of(s->B, OH, OW, s->O, 0, 0);
    }
    p->slots = ck_threads();
    if (kind == CK_CONV_BACKWARD_WEIGHTS)
        wino_plan_gradient(p);
    else
        wino_plan_forward(p);
    p->base.scratch_bytes = sizeof(float) * (p->sharedFloats + (size_t)p->slots * p->slotFloats);
    return &p->base;
}
