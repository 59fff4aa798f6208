// 3×3 convolution of stride 1 by Winograd's F(4×4, 3×3): 36 products where direct convolution has 144, in fp32
// whatever the activations are. Transforms read and write NHWC directly, tile by tile, and leave their results in
// the order in which the products want them. Here are the plans, and the rule for where they pay.
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
/// Weights are taken as they are: see `ck_conv_packed_bytes`.
static void pack(ck_conv *conv, const void *weights, void *packed) { (void)conv, (void)weights, (void)packed; }

static const ck_conv_methods methods = {destroy,      implementation,     pack,
                                        wino_forward, wino_backward_data, wino_backward_weights};

int ck_conv_can_winograd(const ck_conv_shape *s) {
    return s->kernelH == 3 && s->kernelW == 3 && s->stride == 1 && s->padTop <= 2 && s->padLeft <= 2 &&
           s->padBottom <= 2 && s->padRight <= 2 && ck_vector_bits() >= 256;
}

/// Compares the times of both ways, in multiply-adds of direct fp32 convolution, measured with oneDNN 2.6.3 on Zen 4:
/// the transforms cost by tile and channel, and by pair of channels; oneDNN's bf16 passes over images leave out the
/// taps that fall on padding. A rule and not a race at start-up, so that a resumed run computes as the first one did;
/// and it asks for a usual batch, not for the one at hand, so that a sample does not depend on how many others are
/// computed with it.
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
