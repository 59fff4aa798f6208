// Packs bf16 matrices into pairs for the tile products (attention_tile.h), and unpacks results.
#pragma once
#include "attention_tile.h"

/// Mask for up to 32 columns of a row of n numbers, starting at column `from`; columns beyond n are masked out.
CK_TILE __mmask32 columns_at(long from, long n) {
    return n - from >= 32 ? ~(__mmask32)0 : n > from ? ((__mmask32)1 << (n - from)) - 1 : 0;
}

/// x [rows, D] as operand A with pairs along d: x itself or, if D is odd, a padded copy in `space` [rows, D + 1].
CK_TILE pairs as_rows(long rows, long D, const uint16_t *x, long stride, uint16_t *space) {
    if (D % 2 == 0) return (pairs){(const char *)x, 2 * stride, 4};
    for (long row = 0; row < rows; row++) {
        memcpy(space + row * (D + 1), x + row * stride, (size_t)D * 2);
        space[row * (D + 1) + D] = 0;
    }
    return (pairs){(const char *)space, 2 * (D + 1), 4};
}

CK_TILE void transpose_16(__m512i x[16]) {
    __m512i t[16];
    CK_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    CK_UNROLL
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // Lane l of x[i + c] contains column 4·l + c of rows i, …, i + 3.
    CK_UNROLL
    for (int c = 0; c < 4; c++) {
        __m512i even0 = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88);
        __m512i even1 = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88);
        __m512i odd0 = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd);
        __m512i odd1 = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
        x[c] = _mm512_shuffle_i32x4(even0, even1, 0x88);
        x[8 + c] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
        x[4 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
        x[12 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
    }
}

/// xᵀ as operand B with pairs along d, for at most PANEL rows of x [rows, D]: one panel.
CK_BF16_TARGET static void pack_transposed(
    long rows, long D, const uint16_t *x, long stride, uint32_t *panel) {
    for (long d = 0; d < D; d += 32) {
        __mmask32 mask = columns_at(d, D);
        long count = ck_min(16, (D + 1) / 2 - d / 2);
        for (long row = 0; row < PANEL; row += 16) {
            __m512i block[16];
            CK_UNROLL
            for (int i = 0; i < 16; i++)
                block[i] = _mm512_maskz_loadu_epi16(row + i < rows ? mask : 0, x + (row + i) * stride + d);
            transpose_16(block);
            uint32_t *to = panel + d / 2 * PANEL + row;
            CK_UNROLL
            for (int k = 0; k < 16; k++)
                if (k < count) _mm512_storeu_si512(to + k * PANEL, block[k]);
        }
    }
}

/// Interleaves two rows of 32 numbers into 32 pairs: the first and the last 16 columns.
CK_TILE void interleave(__m512i a, __m512i b, __m512i *first, __m512i *last) {
    const __m512i at = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38,
                                        6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    *first = _mm512_permutex2var_epi16(a, at, b);
    *last = _mm512_permutex2var_epi16(a, _mm512_add_epi16(at, _mm512_set1_epi16(16)), b);
}

/// x [rows, D] as operand B with pairs along rows: panels of [(rows + 1)/2][PANEL].
CK_BF16_TARGET static void pack_rows(long rows, long D, const uint16_t *x, long stride, uint32_t *panels) {
    long K = (rows + 1) / 2;
    for (long k = 0; k < K; k++) {
        const uint16_t *row = x + 2 * k * stride;
        for (long d = 0; d < D; d += 32) {
            __mmask32 mask = columns_at(d, D);
            __m512i a = _mm512_maskz_loadu_epi16(mask, row + d), first, last;
            __m512i b = _mm512_maskz_loadu_epi16(2 * k + 1 < rows ? mask : 0, row + stride + d);
            interleave(a, b, &first, &last);
            uint32_t *to = panels + (d / PANEL * K + k) * PANEL + d % PANEL;
            _mm512_storeu_si512(to, first);
            _mm512_storeu_si512(to + 16, last);
        }
    }
}

/// y [n] bf16 ← factor·x
CK_TILE void store_row(long n, float factor, const float *x, uint16_t *y) {
    __m512 by = _mm512_set1_ps(factor);
    for (long i = 0; i < n; i += 32) {
        __mmask32 mask = columns_at(i, n);
        __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, x + i);
        __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + i + 16);
        _mm512_mask_storeu_epi16(y + i, mask, to_bf16(_mm512_mul_ps(low, by), _mm512_mul_ps(high, by)));
    }
}
