// Products of bf16 numbers with AVX512_BF16: a tile of C = A·B is kept in registers. One instruction adds the products
// of pairs of numbers, (a₀, a₁)·(b₀, b₁), in fp32: 64 operations instead of 32 for fp32. Both operands therefore
// consist of pairs along k, stored as uint32_t.
#pragma once
#include "ck_vector.h"

#include <immintrin.h>

#define CK_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define CK_TILE CK_INLINE CK_BF16_TARGET
#define CK_UNROLL _Pragma("clang loop unroll(full)")

enum {
    ROWS = 6,            // 6 × 4 registers of sums, 4 of B, 1 of A
    COLUMNS = 4,         // registers
    PANEL = 16 * COLUMNS  // B is stored in panels of this many columns, [K/2][PANEL] pairs
};

typedef __m512 sums[ROWS][COLUMNS];

/// Operand A: the pair (row m, pair k) is at `m·row + k·pair` bytes from `data`.
typedef struct {
    const char *data;
    long row, pair;
} pairs;

CK_INLINE pairs rows_from(pairs a, long row) {
    a.data += row * a.row;
    return a;
}

/// Calls `call` with the number of rows as the constant M; the second macro provides the number of columns as the
/// constant N.
#define CK_BY_ROWS(rows, call)  \
    switch (rows) {             \
        CK_CASE(M, 1, call)     \
        CK_CASE(M, 2, call)     \
        CK_CASE(M, 3, call)     \
        CK_CASE(M, 4, call)     \
        CK_CASE(M, 5, call)     \
        CK_CASE(M, 6, call)     \
    }
#define CK_BY_COLUMNS(columns, call) \
    switch (columns) {               \
        CK_CASE(N, 1, call)          \
        CK_CASE(N, 2, call)          \
        CK_CASE(N, 3, call)          \
        CK_CASE(N, 4, call)          \
    }
#define CK_CASE(name, value, call) \
    case value: {                  \
        enum { name = value };     \
        call;                      \
        break;                     \
    }

CK_TILE void clear(sums c) {
    CK_UNROLL
    for (int m = 0; m < ROWS; m++)
        CK_UNROLL
        for (int n = 0; n < COLUMNS; n++) c[m][n] = _mm512_setzero_ps();
}

CK_TILE __m512bh broadcast(pairs a, long row, long pair) {
    int both;
    memcpy(&both, a.data + row * a.row + pair * a.pair, 4);
    return (__m512bh)_mm512_set1_epi32(both);
}

/// c += A·B over K pairs.
CK_TILE void multiply_add(int rows, int columns, long K, pairs a, const uint32_t *b, sums c) {
    for (long k = 0; k < K; k++) {
        __m512bh right[COLUMNS];
        CK_UNROLL
        for (int n = 0; n < columns; n++) right[n] = (__m512bh)_mm512_loadu_si512(b + k * PANEL + 16 * n);
        CK_UNROLL
        for (int m = 0; m < rows; m++) {
            __m512bh left = broadcast(a, m, k);
            CK_UNROLL
            for (int n = 0; n < columns; n++) c[m][n] = _mm512_dpbf16_ps(c[m][n], left, right[n]);
        }
    }
}

/// C [rows, 16·columns] fp32 ← A·B, or C += A·B if `add` is set.
CK_TILE void product_tile(
    int rows, int columns, long K, pairs a, const uint32_t *b, int add, float *c, long ldc) {
    sums tile;
    clear(tile);
    if (add) {
        CK_UNROLL
        for (int m = 0; m < rows; m++)
            CK_UNROLL
            for (int n = 0; n < columns; n++) tile[m][n] = _mm512_loadu_ps(c + m * ldc + 16 * n);
    }
    multiply_add(rows, columns, K, a, b, tile);
    CK_UNROLL
    for (int m = 0; m < rows; m++)
        CK_UNROLL
        for (int n = 0; n < columns; n++) _mm512_storeu_ps(c + m * ldc + 16 * n, tile[m][n]);
}

/// 2ˣ with a relative error below 2.5e-7, like ck_exp in base 2. The polynomial of degree 5 suffices, because the
/// results are rounded to bf16 or summed. Saturates at 2⁻¹²⁶; x must be less than 128; NaN propagates; 2⁰ = 1.
CK_TILE __m512 exp2_of(__m512 x) {
    const __m512 magic = _mm512_set1_ps(12582912.0f);  // 1.5·2²³: n ends up in the low bits of a sum
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);     // _mm512_max_ps returns the second operand if one is NaN
    __m512 shifted = _mm512_add_ps(x, magic), r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
    __m512 p = _mm512_set1_ps(1.3276472e-3f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.675541e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550713e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402212e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314694e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    // Add n to the exponent. The low bits of a NaN are 0, as in bf16, so it stays a NaN.
    return (__m512)_mm512_add_epi32((__m512i)p, _mm512_slli_epi32((__m512i)shifted, 23));
}

/// log x for normal x, with a relative error of 1e-7 to 2e-7: x = 2ⁿ·m, log m = 2·artanh((m − 1)/(m + 1)), |m − 1| ≤ ½.
CK_TILE __m512 log_of(__m512 x) {
    const __m512 one = _mm512_set1_ps(1);
    __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src), n = _mm512_getexp_ps(x);
    n = _mm512_mask_add_ps(n, _mm512_cmp_ps_mask(m, one, _CMP_LT_OQ), n, one);
    __m512 t = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one)), square = _mm512_mul_ps(t, t);
    __m512 p = _mm512_set1_ps(2.0f / 9);
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.0f / 7));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.0f / 5));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.0f / 3));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.0f));
    return _mm512_fmadd_ps(n, _mm512_set1_ps(0.693147182f), _mm512_mul_ps(p, t));
}

/// Rounds 32 numbers to bf16.
CK_TILE __m512i to_bf16(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }
