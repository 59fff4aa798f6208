// Conversion between NHWC images and the tiles of Winograd convolution: 6×6 source pixels, 4×4 target pixels, 16
// channels at a time.
#pragma once
#include "conv_plan.h"
#include "conv_transpose.h"
#include "winograd_transform.h"

/// Images [B, H, W, channels] divided into tiles of 4×4 target pixels.
typedef struct {
    long H, W, channels, panels;  // panels of 16 channels
    long padTop, padLeft;         // source only
    long tilesH, tilesW, tiles;   // target only; `tiles` is the total over all images
} wino_images;

static inline wino_images wino_images_of(long B, long H, long W, long channels, long padTop, long padLeft) {
    long tilesH = (H + 3) / 4, tilesW = (W + 3) / 4;
    return (wino_images){H, W, channels, (channels + 15) / 16, padTop, padLeft, tilesH, tilesW,
                         B * tilesH * tilesW};
}

typedef uint16_t wide_halves __attribute__((ext_vector_type(16), aligned(2)));
typedef uint32_t wide_bits __attribute__((ext_vector_type(16)));

/// value ← 16 channels from element `at`, of which the first n exist; the others are zero.
CK_INLINE void wino_load(ck_dtype T, const void *x, long at, long n, wide *value) {
    if (n < 16) {
        *value = 0;
        for (long c = 0; c < n; c++) (*value)[c] = ck_load(T, x, at + c);
    } else if (T == CK_F32) {
        *value = *(const wide *)((const float *)x + at);
    } else {
        wide_halves halves = *(const wide_halves *)((const uint16_t *)x + at);
        *value = (wide)(__builtin_convertvector(halves, wide_bits) << 16);
    }
}

CK_INLINE void wino_store(ck_dtype T, void *y, long at, long n, const wide *value) {
    if (n < 16) {
        for (long c = 0; c < n; c++) ck_store(T, y, at + c, (*value)[c]);
    } else if (T == CK_F32) {
        *(wide *)((float *)y + at) = *value;
    } else {
        wide_bits bits = (wide_bits)*value, rounded = bits + 0x7fff + ((bits >> 16) & 1);
        wide_bits nan = (wide_bits)(*value != *value);
        bits = (rounded & ~nan) | ((bits | 0x400000) & nan);
        *(wide_halves *)((uint16_t *)y + at) = __builtin_convertvector(bits >> 16, wide_halves);
    }
}

/// The image and the first target pixel of tile `tile`.
CK_INLINE void wino_place(const wino_images *target, long tile, long *image, long *row, long *column) {
    *column = tile % target->tilesW * 4;
    *row = tile / target->tilesW % target->tilesH * 4;
    *image = tile / (target->tilesW * target->tilesH);
}

/// Addresses of the 6×6 source pixels of a tile at channel 0. Pixels outside the image point to `nothing`, a panel of
/// zeros, for every panel.
typedef struct {
    const char *pixel[36];
    size_t advance[36];  // all ones if the offset of the panel applies, otherwise zero
} wino_window;

static const float nothing[16] __attribute__((aligned(64)));

CK_INLINE void wino_open_window(ck_dtype T, const wino_images *source, const void *x, long image, long row,
                                long column, wino_window *window) {
    for (long i = 0; i < 6; i++)
        for (long j = 0; j < 6; j++) {
            long h = row + i, w = column + j;
            int inside = h >= 0 && h < source->H && w >= 0 && w < source->W;
            const void *pixel = ck_at(T, x, ((image * source->H + h) * source->W + w) * source->channels);
            window->pixel[6 * i + j] = inside ? pixel : (const void *)nothing;
            window->advance[6 * i + j] = inside ? ~(size_t)0 : 0;
        }
}

/// V [36][panels][rows][16] ← Bᵀ·d·B of `count` tiles from `first`; consecutive positions are `place` floats apart.
CK_INLINE void wino_transform_source(ck_dtype T, const wino_images *source, const wino_images *target,
                                     const void *x, long first, long count, float *V, long rows, long place) {
    for (long t = 0; t < count; t++) {
        long image, row, column;
        wino_place(target, first + t, &image, &row, &column);
        wino_window window;
        wino_open_window(T, source, x, image, row - source->padTop, column - source->padLeft, &window);
        for (long panel = 0; panel < source->panels; panel++) {
            long n = source->channels - panel * 16;
            size_t offset = (size_t)panel * 16 * ck_size(T);
            wide d[6], half[36];
            if (n >= 16) {
#pragma clang loop unroll(full)
                for (int j = 0; j < 6; j++) {
#pragma clang loop unroll(full)
                    for (int i = 0; i < 6; i++)
                        wino_load(T, window.pixel[6 * i + j] + (offset & window.advance[6 * i + j]), 0, 16,
                                  d + i);
                    wino_input(d, 1, half + j, 6);
                }
            } else {
                for (int j = 0; j < 6; j++) {
                    for (int i = 0; i < 6; i++)
                        wino_load(T, window.pixel[6 * i + j] + (offset & window.advance[6 * i + j]), 0, n,
                                  d + i);
                    wino_input(d, 1, half + j, 6);
                }
            }
            wide *out = (wide *)(V + (panel * rows + t) * 16);
#pragma clang loop unroll(full)
            for (int i = 0; i < 6; i++) wino_input(half + 6 * i, 1, out + 6 * i * (place / 16), place / 16);
        }
    }
}

/// Target pixels ← Aᵀ·M·A + bias + addend, for channel panels `panel` ..< `panel + n` of `count` tiles.
CK_INLINE void wino_transform_target(ck_dtype T, const wino_images *target, const float *M, long place,
                                     long ldc, long first, long count, long panel, long n, const float *bias,
                                     const void *addend, void *y) {
    long C = target->channels;
    for (long t = 0; t < count; t++) {
        long image, row, column;
        wino_place(target, first + t, &image, &row, &column);
        long height = ck_min(4, target->H - row), width = ck_min(4, target->W - column);
        long corner = ((image * target->H + row) * target->W + column) * C;
        for (long i = 0; i < n; i++) {
            long channel = (panel + i) * 16, lanes = ck_min(16, C - channel);
            const wide *m = (const wide *)(M + t * ldc + 16 * i);
            wide half[24], out[16];
            for (int j = 0; j < 6; j++) wino_output(m + j * (place / 16), 6 * (place / 16), half + j, 6);
            for (int k = 0; k < 4; k++) wino_output(half + 6 * k, 1, out + 4 * k, 1);
            wide offset = 0;
            if (bias) wino_load(CK_F32, bias, channel, lanes, &offset);
            for (long h = 0; h < height; h++)
                for (long w = 0; w < width; w++) {
                    long at = corner + (h * target->W + w) * C + channel;
                    wide value = out[4 * h + w] + offset, sum = 0;
                    if (addend) wino_load(T, addend, at, lanes, &sum);
                    value += sum;
                    wino_store(T, y, at, lanes, &value);
                }
        }
    }
}

/// Y [36][count][panels·16] ← A·gy·Aᵀ of `count` tiles from `first`, and the sums of gy over these tiles into `biases`.
CK_INLINE void wino_transform_gradient(ck_dtype T, const wino_images *target, const void *gy, long first,
                                       long count, float *Y, long place, float *biases) {
    long C = target->channels, outputs = target->panels * 16;
    if (biases)
        for (long o = 0; o < outputs; o++) biases[o] = 0;
    for (long t = 0; t < count; t++) {
        long image, row, column;
        wino_place(target, first + t, &image, &row, &column);
        long height = ck_min(4, target->H - row), width = ck_min(4, target->W - column);
        long corner = ((image * target->H + row) * target->W + column) * C;
        for (long panel = 0; panel < target->panels; panel++) {
            long n = ck_min(16, C - panel * 16), at = corner + panel * 16;
            wide g[16], half[24], total = 0;
            for (int i = 0; i < 16; i++) g[i] = 0;
            for (long h = 0; h < height; h++)
                for (long w = 0; w < width; w++) {
                    wino_load(T, gy, at + (h * target->W + w) * C, n, g + 4 * h + w);
                    total += g[4 * h + w];
                }
            if (biases) *(wide *)(biases + panel * 16) += total;
            for (int j = 0; j < 4; j++) wino_output_gradient(g + j, 4, half + j, 4);
            wide *out = (wide *)(Y + t * outputs + panel * 16);
            for (int i = 0; i < 6; i++)
                wino_output_gradient(half + 4 * i, 1, out + 6 * i * (place / 16), place / 16);
        }
    }
}

/// tile [rows][16] ← 16 lanes of source; lane l starts at element `at` + l·stride. Missing lanes are zero.
CK_INLINE void wino_lanes_in(ck_dtype T, const void *source, long at, long stride, long lanes, long rows, float *tile) {
    if (lanes == 16) {
        for (int half = 0; half < 16; half += 8)
            transpose_in(T, source, at + half * stride, stride, rows, tile + half, 16);
        return;
    }
    for (long row = 0; row < rows; row++)
        for (long l = 0; l < 16; l++) tile[row * 16 + l] = l < lanes ? ck_load(T, source, at + l * stride + row) : 0;
}

/// U [36][.][inputs][16] ← G·g·Gᵀ for `count` inputs from `input` and 16 outputs from `output`. If `turned` is set, the
/// inputs are the weights' O, the outputs are their C, and the kernel is rotated by 180°.
CK_INLINE void wino_weight_panel(ck_dtype T, const ck_conv_shape *s, int turned, const void *weights, long input,
                                 long count, long output, float *U, long place) {
    float taps[16 * 9 * 16];  // [count][9][16]
    long lanes = ck_min(16, (turned ? s->C : s->O) - output);
    if (turned)
        for (long k = 0; k < count; k++)
            wino_lanes_in(T, weights, ((input + k) * s->C + output) * 9, 9, lanes, 9, taps + k * 9 * 16);
    else
        wino_lanes_in(T, weights, (output * s->C + input) * 9, s->C * 9, lanes, count * 9, taps);
    for (long k = 0; k < count; k++) {
        wide g[9], half[18];
        for (int i = 0; i < 9; i++) g[i] = *(const wide *)(taps + (k * 9 + (turned ? 8 - i : i)) * 16);
        for (int j = 0; j < 3; j++) wino_weights(g + j, 3, half + j, 3);
        wide *out = (wide *)(U + k * 16);
        for (int i = 0; i < 6; i++)
            wino_weights(half + 3 * i, 1, out + 6 * i * (place / 16), place / 16);
    }
}

/// gw [n][9] ← Gᵀ·S·G, or gw += Gᵀ·S·G, for 16 input channels, of which n exist.
CK_INLINE void wino_weight_gradient(const float *S, long place, long n, int accumulate, float *gw) {
    wide half[18], g[9];
    const wide *s = (const wide *)S;
    for (int j = 0; j < 6; j++) wino_weights_gradient(s + j * (place / 16), 6 * (place / 16), half + j, 6);
    for (int i = 0; i < 3; i++) wino_weights_gradient(half + 6 * i, 1, g + 3 * i, 1);
    const float *tile = (const float *)g;
    if (n == 16) {
        for (int lane = 0; lane < 16; lane += 8)
            transpose_out(tile + lane, 16, 9, 9, accumulate, gw + lane * 9);
        return;
    }
    for (long c = 0; c < n; c++)
        for (int tap = 0; tap < 9; tap++)
            gw[c * 9 + tap] = (accumulate ? gw[c * 9 + tap] : 0) + tile[tap * 16 + c];
}
