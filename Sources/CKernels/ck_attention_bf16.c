// Softmax attention of bf16 numbers with AVX512_BF16, about twice as fast as fp32 products (ck_attention.c).
//
// Probabilities and the gradients of the scores are rounded to bf16 before they are multiplied, as in flash attention
// (Dao et al., 2022); sums and the softmax are fp32. Each operand is packed into pairs once per (sample, head).
#include "ckernels.h"

#if defined(__x86_64__)
#include "attention_pack.h"

#include <float.h>

enum {
    QUERIES = 48,  // queries per block in the forward pass: [QUERIES, N] scores fit into the L2 cache
    BLOCK = 256    // queries per block in the backward pass: gk and gv are read and written N / BLOCK times
};

#define LOG2E 1.44269504f

typedef struct {
    long N, heads, D, stride, blocks;  // number of query blocks
    long shares, tasks;                // a share processes a range of tasks with its own scratch memory
    float scale;
    const uint16_t *q, *k, *v, *o, *go;
    uint16_t *gq, *gk, *gv, *out;
    float *lse;
    char *scratch;
} pass;

/// Scratch memory of a share, and its size in bytes.
typedef struct {
    uint32_t *kT, *v;  // operand B of the scores, and of o
    uint16_t *q;
    float *scores, *o;
    float *lanes;  // 16 numbers per row: maxima, later sums, of every 16th score
    size_t bytes;
} forward_space;

typedef struct {
    uint16_t *k, *v;           // operand A, if D is odd
    uint32_t *kRows;           // operand B of gq
    uint32_t *qT, *goT;        // operand B of a block of scores, and of their gradients
    uint32_t *qRows, *goRows;  // operand B of gk and gv
    // A block of probabilities and of score gradients [N, BLOCK], by key; the latter also in pairs along keys.
    uint16_t *p, *gs;
    uint32_t *gsPairs;
    float *gq, *gk, *gv;  // sums
    size_t bytes;
} backward_space;

static long up(long n, long unit) { return (n + unit - 1) / unit * unit; }

/// Reserves `count` elements after the first *at bytes of `base`; returns NULL if `base` is NULL.
static void *take(char *base, size_t *at, long count, size_t size) {
    void *here = base ? base + *at : NULL;
    *at += (size_t)up(count * (long)size, 64);
    return here;
}

static forward_space forward_layout(long N, long D, char *base) {
    long columns = up(D, PANEL), keys = up(N, PANEL);
    size_t at = 0;
    forward_space s;
    s.kT = take(base, &at, keys * ((D + 1) / 2), 4);
    s.v = take(base, &at, columns * ((N + 1) / 2), 4);
    s.q = take(base, &at, D % 2 ? QUERIES * (D + 1) : 0, 2);
    s.scores = take(base, &at, QUERIES * keys, 4);
    s.lanes = take(base, &at, QUERIES * 16, 4);
    s.o = take(base, &at, QUERIES * up(D, 16), 4);
    s.bytes = at;
    return s;
}

static backward_space backward_layout(long N, long D, char *base) {
    long columns = up(D, PANEL), K = (D + 1) / 2;
    size_t at = 0;
    backward_space s;
    s.k = take(base, &at, D % 2 ? N * (D + 1) : 0, 2);
    s.v = take(base, &at, D % 2 ? N * (D + 1) : 0, 2);
    s.kRows = take(base, &at, columns * ((N + 1) / 2), 4);
    s.qT = take(base, &at, PANEL * K, 4);
    s.goT = take(base, &at, PANEL * K, 4);
    s.qRows = take(base, &at, columns * (BLOCK / 2), 4);
    s.goRows = take(base, &at, columns * (BLOCK / 2), 4);
    s.p = take(base, &at, N * BLOCK, 2);
    s.gs = take(base, &at, N * BLOCK, 2);
    s.gsPairs = take(base, &at, (N + 1) / 2 * BLOCK, 4);
    s.gq = take(base, &at, BLOCK * up(D, 16), 4);
    s.gk = take(base, &at, N * up(D, 16), 4);
    s.gv = take(base, &at, N * up(D, 16), 4);
    s.bytes = at;
    return s;
}

/// Offset of row `row` of a (sample, head) in a tensor with this stride.
CK_INLINE long element(const pass *p, long bh, long row, long stride) {
    return (bh / p->heads * p->N + row) * stride + bh % p->heads * p->D;
}

/// Prefetches a row of D numbers that is needed after the current products. The rows of a head are not contiguous, so
/// the hardware prefetcher does not detect them.
CK_TILE void prefetch(long D, const uint16_t *row) {
    for (long d = 0; d < D; d += 32) _mm_prefetch((const char *)(row + d), _MM_HINT_T1);
}

/// C [M, D] ← A·B, or C += A·B if `add` is set, over K pairs.
CK_BF16_TARGET static void product(
    long rows, long D, long K, pairs a, const uint32_t *b, int add, float *c, long ldc) {
    for (long d = 0; d < D; d += PANEL)
        for (long row = 0; row < rows; row += ROWS) {
            const uint32_t *panel = b + d * K;
            float *to = c + row * ldc + d;
            CK_BY_ROWS(ck_min(ROWS, rows - row),
                       CK_BY_COLUMNS(ck_min(COLUMNS, (D - d + 15) / 16),
                                     product_tile(M, N, K, rows_from(a, row), panel, add, to, ldc)))
        }
}

// MARK: forward

/// Computes a tile of scores [rows, PANEL], of which `keys` columns are valid, and the maximum of each row's 16 lanes.
CK_TILE void score_tile(int rows, long K, pairs q, const uint32_t *kT, long keys, int first, float *scores,
                        long stride, float *maxima) {
    sums s;
    clear(s);
    multiply_add(rows, COLUMNS, K, q, kT, s);
    if (keys < PANEL) {
        CK_UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            long real = ck_max(0, ck_min(16, keys - 16 * n));
            __mmask16 beyond = (__mmask16)(0xffffu << real);
            CK_UNROLL
            for (int m = 0; m < rows; m++)
                s[m][n] = _mm512_mask_mov_ps(s[m][n], beyond, _mm512_set1_ps(-FLT_MAX));
        }
    }
    CK_UNROLL
    for (int m = 0; m < rows; m++) {
        __m512 most = _mm512_max_ps(_mm512_max_ps(s[m][0], s[m][1]), _mm512_max_ps(s[m][2], s[m][3]));
        if (!first) most = _mm512_max_ps(most, _mm512_loadu_ps(maxima + 16 * m));
        _mm512_storeu_ps(maxima + 16 * m, most);
        CK_UNROLL
        for (int n = 0; n < COLUMNS; n++) _mm512_storeu_ps(scores + m * stride + 16 * n, s[m][n]);
    }
}

/// Replaces the scores by exp(scale·(scores − maximum)) [n] as bf16; returns 16 partial sums of the fp32 values.
CK_TILE __m512 probabilities(long n, float scale, float maximum, float *scores) {
    __m512 by = _mm512_set1_ps(scale * LOG2E), shift = _mm512_set1_ps(maximum * (scale * LOG2E));
    __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
    uint16_t *to = (uint16_t *)scores;
    for (long i = 0; i < n; i += 32) {
        __m512 p0 = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), by, shift));
        __m512 p1 = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i + 16), by, shift));
        sum0 = _mm512_add_ps(sum0, p0);
        sum1 = _mm512_add_ps(sum1, p1);
        _mm512_storeu_si512(to + i, to_bf16(p0, p1));
    }
    return _mm512_add_ps(sum0, sum1);
}

/// The maximum or the sum of each of 16 rows of 16 numbers.
enum { MAXIMUM, SUM };
CK_TILE __m512 across(const float *rows, int what) {
    __m512i x[16];
    CK_UNROLL
    for (int i = 0; i < 16; i++) x[i] = _mm512_loadu_si512(rows + 16 * i);
    transpose_16(x);
    CK_UNROLL
    for (int half = 8; half; half /= 2)
        CK_UNROLL
        for (int i = 0; i < half; i++) {
            __m512 a = (__m512)x[i], b = (__m512)x[i + half];
            x[i] = (__m512i)(what == SUM ? _mm512_add_ps(a, b) : _mm512_max_ps(a, b));
        }
    return (__m512)x[0];
}

CK_BF16_TARGET static void forward_share(const pass *p, long share) {
    const long N = p->N, D = p->D, stride = p->stride, dense = p->heads * D;
    const long K = (D + 1) / 2, keys = up(N, PANEL), ldo = up(D, 16);
    forward_space s = forward_layout(N, D, NULL);
    s = forward_layout(N, D, p->scratch + (size_t)share * s.bytes);
    long head = -1;  // the head that k and v currently belong to
    for (long task = p->tasks * share / p->shares; task < p->tasks * (share + 1) / p->shares; task++) {
        long bh = task / p->blocks, first = task % p->blocks * QUERIES, rows = ck_min(QUERIES, N - first);
        long base = element(p, bh, 0, stride), at = element(p, bh, first, dense);
        long next = element(p, ck_min(bh + 1, p->tasks / p->blocks - 1), first, stride);
        if (bh != head) {
            for (long key = 0; key < N; key += PANEL)
                pack_transposed(ck_min(PANEL, N - key), D, p->k + base + key * stride, stride, s.kT + key * K);
            pack_rows(N, D, p->v + base, stride, s.v);
            head = bh;
        }
        pairs q = as_rows(rows, D, p->q + base + first * stride, stride, s.q);
        for (long key = 0; key < N; key += PANEL)
            for (long row = 0; row < rows; row += ROWS) {
                CK_BY_ROWS(ck_min(ROWS, rows - row),
                           score_tile(M, K, rows_from(q, row), s.kT + key * K, N - key, key == 0,
                                      s.scores + row * keys + key, keys, s.lanes + 16 * row))
            }
        float maxima[QUERIES], factors[QUERIES];
        for (long row = 0; row < rows; row += 16)
            _mm512_storeu_ps(maxima + row, across(s.lanes + 16 * row, MAXIMUM));
        for (long row = 0; row < rows; row++) {
            __m512 sums = probabilities(keys, p->scale, maxima[row], s.scores + row * keys);
            _mm512_storeu_ps(s.lanes + 16 * row, sums);
            prefetch(D, p->q + next + row * stride);
            prefetch(D, p->k + next + row * stride);
            prefetch(D, p->v + next + row * stride);
            prefetch(D, p->out + at + row * dense);
        }
        for (long row = 0; row < rows; row += 16) {
            __m512 sum = across(s.lanes + 16 * row, SUM), maximum = _mm512_loadu_ps(maxima + row);
            __m512 lse = _mm512_fmadd_ps(maximum, _mm512_set1_ps(p->scale), log_of(sum));
            _mm512_mask_storeu_ps(p->lse + bh * N + first + row, (__mmask16)columns_at(row, rows), lse);
            _mm512_storeu_ps(factors + row, _mm512_div_ps(_mm512_set1_ps(1), sum));
        }
        product(rows, D, (N + 1) / 2, (pairs){(const char *)s.scores, 4 * keys, 4}, s.v, 0, s.o, ldo);
        for (long row = 0; row < rows; row++)
            store_row(D, factors[row], s.o + row * ldo, p->out + at + row * dense);
    }
}

static void forward_body(void *context, long begin, long end) {
    for (long share = begin; share < end; share++) forward_share(context, share);
}

// MARK: backward

/// For `rows` keys and a block of queries: probabilities p = exp(scale·k·q − lse), and gs = p·(v·go − delta), the
/// gradients of the scores without the factor `scale`.
CK_TILE void gradient_tile(int rows, long K, pairs k, pairs v, const uint32_t *qT, const uint32_t *goT,
                           float scale, const float *lse2, const float *minusDelta, uint16_t *p, uint16_t *gs,
                           uint32_t *gsPairs) {
    float exact[ROWS][PANEL];
    sums s;
    clear(s);
    multiply_add(rows, COLUMNS, K, k, qT, s);
    __m512 by = _mm512_set1_ps(scale * LOG2E);
    CK_UNROLL
    for (int m = 0; m < rows; m++) {
        CK_UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            s[m][n] = exp2_of(_mm512_fmsub_ps(s[m][n], by, _mm512_loadu_ps(lse2 + 16 * n)));
            _mm512_storeu_ps(exact[m] + 16 * n, s[m][n]);
        }
        _mm512_storeu_si512(p + m * BLOCK, to_bf16(s[m][0], s[m][1]));
        _mm512_storeu_si512(p + m * BLOCK + 32, to_bf16(s[m][2], s[m][3]));
    }
    CK_UNROLL
    for (int m = 0; m < rows; m++)
        CK_UNROLL
        for (int n = 0; n < COLUMNS; n++) s[m][n] = _mm512_loadu_ps(minusDelta + 16 * n);
    multiply_add(rows, COLUMNS, K, v, goT, s);
    CK_UNROLL
    for (int m = 0; m < rows; m++)
        CK_UNROLL
        for (int n = 0; n < COLUMNS; n++)
            s[m][n] = _mm512_mul_ps(s[m][n], _mm512_loadu_ps(exact[m] + 16 * n));
    CK_UNROLL
    for (int m = 0; m < rows; m += 2)
        CK_UNROLL
        for (int n = 0; n < COLUMNS; n += 2) {
            __m512i even = to_bf16(s[m][n], s[m][n + 1]), odd = _mm512_setzero_si512(), low, high;
            _mm512_storeu_si512(gs + m * BLOCK + 16 * n, even);
            if (m + 1 < rows) {
                odd = to_bf16(s[m + 1][n], s[m + 1][n + 1]);
                _mm512_storeu_si512(gs + (m + 1) * BLOCK + 16 * n, odd);
            }
            interleave(even, odd, &low, &high);
            _mm512_storeu_si512(gsPairs + m / 2 * BLOCK + 16 * n, low);
            _mm512_storeu_si512(gsPairs + m / 2 * BLOCK + 16 * n + 16, high);
        }
}

CK_TILE float dot(long n, const uint16_t *x, const uint16_t *y) {
    __m512 sum = _mm512_setzero_ps();
    for (long i = 0; i < n; i += 32) {
        __mmask32 mask = columns_at(i, n);
        sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi16(mask, x + i),
                               (__m512bh)_mm512_maskz_loadu_epi16(mask, y + i));
    }
    return _mm512_reduce_add_ps(sum);
}

/// Computes probabilities and score gradients of `rows` queries, at most PANEL, beginning with query `first`: the
/// columns of s->p, s->gs and s->gsPairs from `column` on.
CK_BF16_TARGET static void score_gradients(
    const pass *p, const backward_space *s, pairs k, pairs v, long bh, long first, long rows, long column) {
    const long N = p->N, D = p->D, K = (D + 1) / 2, dense = p->heads * D;
    const uint16_t *go = p->go + element(p, bh, first, dense), *o = p->o + element(p, bh, first, dense);
    pack_transposed(rows, D, p->q + element(p, bh, first, p->stride), p->stride, s->qT);
    pack_transposed(rows, D, go, dense, s->goT);
    // Queries beyond the last have q = go = 0 and contribute nothing, regardless of their probabilities.
    float lse2[PANEL] = {0}, minusDelta[PANEL] = {0};
    for (long row = 0; row < rows; row++) {
        lse2[row] = p->lse[bh * N + first + row] * LOG2E;
        minusDelta[row] = -dot(D, go + row * dense, o + row * dense);
    }
    long next = ck_min(bh + 1, p->tasks - 1);
    for (long key = 0; key < N; key += ROWS) {
        for (long row = rows * key / N; row < rows * ck_min(key + ROWS, N) / N; row++) {
            long write = element(p, bh, first + row, p->stride);
            long read = element(p, next, first + row, p->stride);
            long readDense = element(p, next, first + row, dense);
            prefetch(D, p->gq + write);
            prefetch(D, p->gk + write);
            prefetch(D, p->gv + write);
            prefetch(D, p->q + read);
            prefetch(D, p->k + read);
            prefetch(D, p->v + read);
            prefetch(D, p->o + readDense);
            prefetch(D, p->go + readDense);
        }
        CK_BY_ROWS(ck_min(ROWS, N - key),
                   gradient_tile(M, K, rows_from(k, key), rows_from(v, key), s->qT, s->goT, p->scale, lse2,
                                 minusDelta, s->p + key * BLOCK + column, s->gs + key * BLOCK + column,
                                 s->gsPairs + key / 2 * BLOCK + column))
    }
}

CK_BF16_TARGET static void backward_share(const pass *p, long share) {
    const long N = p->N, D = p->D, stride = p->stride, dense = p->heads * D, ld = up(D, 16);
    backward_space s = backward_layout(N, D, NULL);
    s = backward_layout(N, D, p->scratch + (size_t)share * s.bytes);
    for (long bh = p->tasks * share / p->shares; bh < p->tasks * (share + 1) / p->shares; bh++) {
        long base = element(p, bh, 0, stride);
        pairs k = as_rows(N, D, p->k + base, stride, s.k), v = as_rows(N, D, p->v + base, stride, s.v);
        pack_rows(N, D, p->k + base, stride, s.kRows);
        for (long first = 0; first < N; first += BLOCK) {
            long rows = ck_min(BLOCK, N - first), half = (rows + 1) / 2;
            for (long row = 0; row < rows; row += PANEL)
                score_gradients(p, &s, k, v, bh, first + row, ck_min(PANEL, rows - row), row);
            pairs probabilities = {(const char *)s.p, 2 * BLOCK, 4};
            pairs gradients = {(const char *)s.gs, 2 * BLOCK, 4};
            pairs transposed = {(const char *)s.gsPairs, 4, 4 * BLOCK};
            pack_rows(rows, D, p->go + element(p, bh, first, dense), dense, s.goRows);
            product(N, D, half, probabilities, s.goRows, first > 0, s.gv, ld);
            pack_rows(rows, D, p->q + base + first * stride, stride, s.qRows);
            product(N, D, half, gradients, s.qRows, first > 0, s.gk, ld);
            product(rows, D, (N + 1) / 2, transposed, s.kRows, 0, s.gq, ld);
            for (long row = 0; row < rows; row++)
                store_row(D, p->scale, s.gq + row * ld, p->gq + base + (first + row) * stride);
        }
        for (long row = 0; row < N; row++) {
            store_row(D, p->scale, s.gk + row * ld, p->gk + base + row * stride);
            store_row(D, 1, s.gv + row * ld, p->gv + base + row * stride);
        }
    }
}

static void backward_body(void *context, long begin, long end) {
    for (long share = begin; share < end; share++) backward_share(context, share);
}

static int has_bf16(void) {
    return CK_LEVEL >= 4 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}

static pass make_pass(long N, long heads, long D, float scale, long stride, void *scratch) {
    return (pass){.N = N, .heads = heads, .D = D, .scale = scale, .stride = stride, .scratch = scratch,
                  .blocks = (N + QUERIES - 1) / QUERIES, .shares = ck_threads()};
}
#endif

// MARK: entry

size_t ck_attention_bf16_scratch_bytes(long B, long N, long heads, long D) {
#if defined(__x86_64__)
    if (has_bf16()) {
        size_t forward = forward_layout(N, D, NULL).bytes, backward = backward_layout(N, D, NULL).bytes;
        return (size_t)ck_threads() * (forward > backward ? forward : backward);
    }
#endif
    return ck_attention_scratch_bytes(B, N, heads, D);
}

void ck_attention_bf16_forward(long B, long N, long heads, long D, float scale, const void *q, const void *k,
                               const void *v, long stride, void *o, float *lse, void *scratch) {
#if defined(__x86_64__)
    if (has_bf16()) {
        pass p = make_pass(N, heads, D, scale, stride, scratch);
        p.tasks = B * heads * p.blocks;
        p.q = q;
        p.k = k;
        p.v = v;
        p.out = o;
        p.lse = lse;
        ck_parallel(p.shares, 1, forward_body, &p);
        return;
    }
#endif
    ck_attention_forward(CK_BF16, B, N, heads, D, scale, q, k, v, stride, o, lse, scratch);
}

void ck_attention_bf16_backward(long B, long N, long heads, long D, float scale, const void *q, const void *k,
                                const void *v, long stride, const void *o, const float *lse, const void *go,
                                void *gq, void *gk, void *gv, void *scratch) {
#if defined(__x86_64__)
    if (has_bf16()) {
        pass p = make_pass(N, heads, D, scale, stride, scratch);
        p.tasks = B * heads;
        p.q = q;
        p.k = k;
        p.v = v;
        p.o = o;
        p.lse = (float *)lse;
        p.go = go;
        p.gq = gq;
        p.gk = gk;
        p.gv = gv;
        ck_parallel(p.shares, 1, backward_body, &p);
        return;
    }
#endif
    ck_attention_backward(CK_BF16, B, N, heads, D, scale, q, k, v, stride, o, lse, go, gq, gk, gv, scratch);
}
