// Transposition between PyTorch's weights, [O, C, taps], and blocks that store channels next to each other (the lanes):
// 8×8 values at a time, in registers.
#pragma once
#include "ck_vector.h"

typedef float floats8 __attribute__((vector_size(32)));

/// r[i][j] ↔ r[j][i]
CK_INLINE void transpose8(floats8 *r) {
    floats8 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {  // pairs of elements
        a[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        a[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)  // pairs of pairs
        for (int j = 0; j < 2; j++) {
            b[i + j] = __builtin_shufflevector(a[i + j], a[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            b[i + j + 2] = __builtin_shufflevector(a[i + j], a[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int j = 0; j < 4; j++) {  // halves
        r[j] = __builtin_shufflevector(b[j], b[j + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[j + 4] = __builtin_shufflevector(b[j], b[j + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/// value ← 8 elements from element i.
CK_INLINE void load8(ck_dtype T, const void *x, long i, floats8 *value) {
    if (T == CK_F32) {
        memcpy(value, (const float *)x + i, sizeof *value);
    } else {
        typedef uint16_t halves8 __attribute__((vector_size(16)));
        typedef uint32_t wholes8 __attribute__((vector_size(32)));
        halves8 halves;
        memcpy(&halves, (const uint16_t *)x + i, sizeof halves);
        *value = (floats8)(__builtin_convertvector(halves, wholes8) << 16);
    }
}

/// tile [rows, width] ← 8 lanes of source; lane l starts at element `at` + l·stride.
CK_INLINE void transpose_in(ck_dtype T, const void *source, long at, long stride, long rows, float *tile,
                            long width) {
    if (stride == 1 && rows == 1) {  // 1×1 kernels, with lanes of input channels
        floats8 value;
        load8(T, source, at, &value);
        memcpy(tile, &value, sizeof value);
        return;
    }
    long row = 0;
    for (; row + 8 <= rows; row += 8) {
        floats8 r[8];
        for (int l = 0; l < 8; l++) load8(T, source, at + l * stride + row, r + l);
        transpose8(r);
        for (int l = 0; l < 8; l++) memcpy(tile + (row + l) * width, &r[l], sizeof *r);
    }
    for (; row < rows; row++)
        for (long l = 0; l < 8; l++) tile[row * width + l] = ck_load(T, source, at + l * stride + row);
}

/// The inverse of transpose_in; adds to the target if `accumulate` is set.
CK_INLINE void transpose_out(
    const float *tile, long width, long stride, long rows, int accumulate, float *target) {
    long row = 0;
    for (; row + 8 <= rows; row += 8) {
        floats8 r[8];
        for (int l = 0; l < 8; l++) memcpy(&r[l], tile + (row + l) * width, sizeof *r);
        transpose8(r);
        for (int l = 0; l < 8; l++) {
            float *y = target + l * stride + row;
            floats8 before;
            memcpy(&before, y, sizeof before);
            if (accumulate) r[l] += before;
            memcpy(y, &r[l], sizeof *r);
        }
    }
    for (; row < rows; row++)
        for (long l = 0; l < 8; l++) {
            float *y = target + l * stride + row;
            *y = (accumulate ? *y : 0) + tile[row * width + l];
        }
}
