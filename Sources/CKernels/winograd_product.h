// The products of Winograd convolution: small blocks of C in registers. The transforms store both operands in the
// required layout, so nothing is packed.
#pragma once
#include "winograd_transform.h"

/// The layout of operand A: A(k, m) for the product C(m, n) = Σ_k A(k, m)·B(k, n).
enum {
    PANELS,  // [K/16][stride rows][16]: k runs along panels of 16 channels, m over rows of 16
    ROWS     // [K][stride]: m runs along a row
};

/// C [rows, 16·columns] ← A·B, or C += A·B if `add` is set. B consists of `columns` panels [K][16], `panel` floats
/// apart.
CK_INLINE void multiply_block(int layout, int rows, int columns, long K, const float *a, long stride,
                              const float *b, long panel, int add, float *c, long ldc) {
    wide sums[14][2];
#pragma clang loop unroll(full)
    for (int m = 0; m < rows; m++)
#pragma clang loop unroll(full)
        for (int n = 0; n < columns; n++) sums[m][n] = add ? *(const wide *)(c + m * ldc + 16 * n) : (wide)0;
    for (long k = 0; k < K; k++) {
        const float *row = layout == PANELS ? a + (k >> 4) * 16 * stride + (k & 15) : a + k * stride;
        wide b0 = *(const wide *)(b + 16 * k), b1 = 0;
        if (columns == 2) b1 = *(const wide *)(b + panel + 16 * k);
#pragma clang loop unroll(full)
        for (int m = 0; m < rows; m++) {
            wide value = row[layout == PANELS ? 16 * m : m];
            sums[m][0] += value * b0;
            if (columns == 2) sums[m][1] += value * b1;
        }
    }
#pragma clang loop unroll(full)
    for (int m = 0; m < rows; m++)
#pragma clang loop unroll(full)
        for (int n = 0; n < columns; n++) *(wide *)(c + m * ldc + 16 * n) = sums[m][n];
}

/// The same for a number of rows that is not a compile-time constant: even, at most 14.
CK_INLINE void multiply_rows(int layout, long rows, int columns, long K, const float *a, long stride,
                             const float *b, long panel, int add, float *c, long ldc) {
    switch (rows) {
#define CASE(n)                                                                          \
    case n:                                                                              \
        multiply_block(layout, n, columns, K, a, stride, b, panel, add, c, ldc);         \
        break;
        CASE(2)
        CASE(4)
        CASE(6)
        CASE(8)
        CASE(10)
        CASE(12)
        CASE(14)
#undef CASE
    }
}

/// C [M, 16·panels] of any size; M is even. The registers hold `most` rows, and two panels at a time if `pairs` is set.
CK_INLINE void multiply(int layout, long M, long panels, long K, const float *a, long stride, const float *b,
                        long panel, int add, float *c, long ldc, long most, int pairs) {
    long blocks = (M + most - 1) / most;
    for (long n = 0; n < panels;) {
        int columns = pairs && n + 2 <= panels ? 2 : 1;
        const float *bn = b + n * panel;
        for (long block = 0; block < blocks; block++) {
            long first = M / 2 * block / blocks * 2, rows = M / 2 * (block + 1) / blocks * 2 - first;
            const float *am = a + (layout == PANELS ? 16 * first : first);
            float *cm = c + first * ldc + 16 * n;
            if (columns == 2)
                multiply_rows(layout, rows, 2, K, am, stride, bn, panel, add, cm, ldc);
            else
                multiply_rows(layout, rows, 1, K, am, stride, bn, panel, add, cm, ldc);
        }
        n += columns;
    }
}
