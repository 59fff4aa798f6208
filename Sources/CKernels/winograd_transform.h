// The one-dimensional transforms of Winograd's F(4, 3): y = Aᵀ[(G·g) ⊙ (Bᵀ·d)] with six inputs d, three weights g and
// four outputs y. The two-dimensional transforms apply them along columns, then along rows.
//
// The interpolation points are 0, ±a, ±b and infinity. a = 5/8 and b = 3/2 keep the fp32 error within twice that of
// direct convolution; the textbook values 1 and 2 would lose a digit.
//
// Sources: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; Blahut, "Fast Algorithms
// for Signal Processing", 2010, section 5.4.
#pragma once
#include "ck_vector.h"

typedef float wide __attribute__((ext_vector_type(16), aligned(4)));  // 16 channels

/// The interpolation points and their powers.
static const float wa = 0.625f, wa2 = 0.390625f, wa3 = 0.244140625f;
static const float wb = 1.5f, wb2 = 2.25f, wb3 = 3.375f;
static const float wsum = 2.640625f, wproduct = 0.87890625f;  // a² + b², a²·b²
/// Π (point − other point) for 0, ±a and ±b.
static const float wn0 = 0.87890625f, wna = 2 * 0.390625f * (0.390625f - 2.25f),
                   wnb = 2 * 2.25f * (2.25f - 0.390625f);

/// v[0..<6] ← Bᵀ·d, with elements `step` apart.
CK_INLINE void wino_input(const wide *d, long step, wide *v, long vStep) {
    wide d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    wide evenA = d4 - wb2 * d2, oddA = wa * (d3 - wb2 * d1);
    wide evenB = d4 - wa2 * d2, oddB = wb * (d3 - wa2 * d1);
    v[0] = d4 - wsum * d2 + wproduct * d0;
    v[vStep] = evenA + oddA;
    v[2 * vStep] = evenA - oddA;
    v[3 * vStep] = evenB + oddB;
    v[4 * vStep] = evenB - oddB;
    v[5 * vStep] = d5 - wsum * d3 + wproduct * d1;
}

/// y[0..<4] ← Aᵀ·m
CK_INLINE void wino_output(const wide *m, long step, wide *y, long yStep) {
    wide m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    wide evenA = m1 + m2, oddA = m1 - m2, evenB = m3 + m4, oddB = m3 - m4;
    y[0] = m[0] + evenA + evenB;
    y[yStep] = wa * oddA + wb * oddB;
    y[2 * yStep] = wa2 * evenA + wb2 * evenB;
    y[3 * yStep] = wa3 * oddA + wb3 * oddB + m[5 * step];
}

/// u[0..<6] ← G·g
CK_INLINE void wino_weights(const wide *g, long step, wide *u, long uStep) {
    wide g0 = g[0], g1 = g[step], g2 = g[2 * step];
    wide evenA = (g0 + wa2 * g2) * (1 / wna), oddA = g1 * (wa / wna);
    wide evenB = (g0 + wb2 * g2) * (1 / wnb), oddB = g1 * (wb / wnb);
    u[0] = g0 * (1 / wn0);
    u[uStep] = evenA + oddA;
    u[2 * uStep] = evenA - oddA;
    u[3 * uStep] = evenB + oddB;
    u[4 * uStep] = evenB - oddB;
    u[5 * uStep] = g2;
}

/// v[0..<6] ← A·y: the gradient of `wino_output`.
CK_INLINE void wino_output_gradient(const wide *y, long step, wide *v, long vStep) {
    wide y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    wide evenA = y0 + wa2 * y2, oddA = wa * y1 + wa3 * y3;
    wide evenB = y0 + wb2 * y2, oddB = wb * y1 + wb3 * y3;
    v[0] = y0;
    v[vStep] = evenA + oddA;
    v[2 * vStep] = evenA - oddA;
    v[3 * vStep] = evenB + oddB;
    v[4 * vStep] = evenB - oddB;
    v[5 * vStep] = y3;
}

/// g[0..<3] ← Gᵀ·u: the gradient of `wino_weights`.
CK_INLINE void wino_weights_gradient(const wide *u, long step, wide *g, long gStep) {
    wide evenA = (u[step] + u[2 * step]) * (1 / wna), oddA = (u[step] - u[2 * step]) * (wa / wna);
    wide evenB = (u[3 * step] + u[4 * step]) * (1 / wnb), oddB = (u[3 * step] - u[4 * step]) * (wb / wnb);
    g[0] = u[0] * (1 / wn0) + evenA + evenB;
    g[gStep] = oddA + oddB;
    g[2 * gStep] = wa2 * evenA + wb2 * evenB + u[5 * step];
}
