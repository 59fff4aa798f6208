// Softmax attention over blocks of query rows and keys.
//
// The forward pass is the online softmax (Milakov and Gimelshein, 2018): it processes blocks of keys with a running
// maximum and sum for every query. The backward pass recomputes the probabilities from lse (Dao et al., 2022). Products
// run on OpenBLAS on the calling thread. Work is parallel over (sample, head), and in the forward pass also over query
// blocks.
#include "ck_vector.h"

#include <cblas.h>
#include <math.h>

enum { QUERIES = 128, KEYS = 512 };  // a block of scores: 256 KiB, fits into the L2 cache

typedef float vector __attribute__((ext_vector_type(16), aligned(4)));

typedef struct {
    ck_dtype dtype;
    long B, N, heads, D, stride, blocks;  // number of query blocks
    long shares, tasks;                   // a share processes a range of tasks with its own scratch memory
    float scale;
    const void *q, *k, *v, *o, *go;
    void *gq, *gk, *gv, *out;
    float *lse;
    char *scratch;
} pass;

/// Number of floats that one share needs: k, v, gk, gv; one block of q, o (or go) and gq; two blocks of scores; three
/// numbers per query.
static long share_floats(long N, long D) {
    long queries = ck_min(QUERIES, N), keys = ck_min(KEYS, N);
    long floats = 4 * N * D + 3 * queries * D + 2 * queries * keys + 3 * queries;
    return (floats + 15) / 16 * 16;
}

size_t ck_attention_scratch_bytes(long B, long N, long heads, long D) {
    (void)B, (void)heads;
    return (size_t)ck_threads() * (size_t)share_floats(N, D) * sizeof(float);
}

typedef struct {
    const float *data;
    long stride;
} matrix;

/// `rows` rows of D fp32 numbers: x itself, or converted into `space`.
CK_INLINE matrix as_float(ck_dtype T, long rows, long D, const void *x, long stride, float *space) {
    if (T == CK_F32) return (matrix){x, stride};
    for (long row = 0; row < rows; row++) {
        const void *from = ck_at(T, x, row * stride);
        float *to = space + row * D;
        CK_CHANNELS
        for (long d = 0; d < D; d++) to[d] = ck_load(T, from, d);
    }
    return (matrix){space, D};
}

CK_INLINE void store_rows(ck_dtype T, long rows, long D, const float *x, void *y, long stride) {
    for (long row = 0; row < rows; row++) {
        const float *from = x + row * D;
        void *to = ck_at_mutable(T, y, row * stride);
        CK_CHANNELS
        for (long d = 0; d < D; d++) ck_store(T, to, d, from[d]);
    }
}

static void product(int transA, int transB, long M, long N, long K, float alpha, matrix A, matrix B,
                    float beta, float *C, long ldc) {
    cblas_sgemm(CblasRowMajor, transA ? CblasTrans : CblasNoTrans, transB ? CblasTrans : CblasNoTrans,
                (blasint)M, (blasint)N, (blasint)K, alpha, A.data, (blasint)A.stride, B.data,
                (blasint)B.stride, beta, C, (blasint)ldc);
}

// MARK: forward

CK_INLINE float largest(long n, const float *x) {
    float result = x[0];
    long i = 0;
    if (n >= 16) {
        vector lanes = *(const vector *)x;
        for (i = 16; i + 16 <= n; i += 16)
            lanes = __builtin_elementwise_max(lanes, *(const vector *)(x + i));
        result = __builtin_reduce_max(lanes);
    }
    for (; i < n; i++) result = x[i] > result ? x[i] : result;
    return result;
}

/// x ← exp(x − shift); returns the sum.
CK_INLINE float exponentials(long n, float *x, float shift) {
#pragma clang fp reassociate(on)
    float sum = 0;
#pragma clang loop vectorize(assume_safety) vectorize_width(16) interleave_count(2)
    for (long i = 0; i < n; i++) {
        x[i] = ck_exp(x[i] - shift);
        sum += x[i];
    }
    return sum;
}

/// Adds one block of scores [rows, keys] to the running softmax; rescales o if the maximum has increased.
CK_INLINE void online_softmax(
    long rows, long keys, float *scores, int first, float *maximum, float *sum, long D, float *o) {
    for (long row = 0; row < rows; row++) {
        float *s = scores + row * keys, m = largest(keys, s);
        if (first) {
            maximum[row] = m;
            sum[row] = exponentials(keys, s, m);
            continue;
        }
        if (m > maximum[row]) {
            float factor = ck_exp(maximum[row] - m);
            maximum[row] = m;
            sum[row] *= factor;
            CK_CHANNELS
            for (long d = 0; d < D; d++) o[row * D + d] *= factor;
        }
        sum[row] += exponentials(keys, s, maximum[row]);
    }
}

CK_INLINE void forward_share(ck_dtype T, const pass *p, long share) {
    const long N = p->N, D = p->D, stride = p->stride, queries = ck_min(QUERIES, N), keys = ck_min(KEYS, N);
    float *kSpace = (float *)p->scratch + share * share_floats(N, D), *vSpace = kSpace + N * D;
    float *qSpace = vSpace + N * D, *o = qSpace + queries * D, *scores = o + queries * D;
    float *maximum = scores + queries * keys, *sum = maximum + queries;
    matrix k = {0}, v = {0};
    long head = -1;  // the head that k and v currently belong to
    for (long task = p->tasks * share / p->shares; task < p->tasks * (share + 1) / p->shares; task++) {
        long bh = task / p->blocks, b = bh / p->heads, h = bh % p->heads;
        long base = b * N * stride + h * D, first = task % p->blocks * QUERIES;
        long rows = ck_min(QUERIES, N - first), at = (b * N + first) * p->heads * D + h * D;
        if (bh != head) {
            k = as_float(T, N, D, ck_at(T, p->k, base), stride, kSpace);
            v = as_float(T, N, D, ck_at(T, p->v, base), stride, vSpace);
            head = bh;
        }
        matrix q = as_float(T, rows, D, ck_at(T, p->q, base + first * stride), stride, qSpace);
        for (long key = 0; key < N; key += KEYS) {
            long n = ck_min(KEYS, N - key);
            matrix kBlock = {k.data + key * k.stride, k.stride};
            matrix vBlock = {v.data + key * v.stride, v.stride};
            product(0, 1, rows, n, D, p->scale, q, kBlock, 0, scores, n);
            online_softmax(rows, n, scores, key == 0, maximum, sum, D, o);
            product(0, 0, rows, D, n, 1, (matrix){scores, n}, vBlock, key == 0 ? 0 : 1, o, D);
        }
        for (long row = 0; row < rows; row++) {
            float factor = 1 / sum[row], *from = o + row * D;
            CK_CHANNELS
            for (long d = 0; d < D; d++) from[d] *= factor;
            p->lse[bh * N + first + row] = maximum[row] + logf(sum[row]);
        }
        store_rows(T, rows, D, o, ck_at_mutable(T, p->out, at), p->heads * D);
    }
}

CK_KERNEL static void forward_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long share = begin; share < end; share++) CK_BY_TYPE(p->dtype, forward_share(T, p, share));
}

static pass make_pass(
    ck_dtype dtype, long B, long N, long heads, long D, float scale, long stride, void *scratch) {
    pass p = {.dtype = dtype, .B = B, .N = N, .heads = heads, .D = D, .scale = scale, .stride = stride};
    p.blocks = (N + QUERIES - 1) / QUERIES;
    p.shares = ck_threads();
    p.scratch = scratch;
    return p;
}

void ck_attention_forward(ck_dtype dtype, long B, long N, long heads, long D, float scale, const void *q,
                          const void *k, const void *v, long stride, void *o, float *lse, void *scratch) {
    pass p = make_pass(dtype, B, N, heads, D, scale, stride, scratch);
    p.tasks = B * heads * p.blocks;
    p.q = q;
    p.k = k;
    p.v = v;
    p.out = o;
    p.lse = lse;
    ck_parallel(p.shares, 1, forward_body, &p);
}

// MARK: backward

/// probabilities ← exp(scores − lse), and gradients ← probabilities·(gradients − delta)·scale, the gradients of the
/// scores.
CK_INLINE void score_gradients(
    long n, float scale, float lse, float delta, float *probabilities, float *gradients) {
    CK_LOOP
    for (long i = 0; i < n; i++) {
        float probability = ck_exp(probabilities[i] - lse);
        probabilities[i] = probability;
        gradients[i] = probability * (gradients[i] - delta) * scale;
    }
}

CK_INLINE float dot(ck_dtype T, long n, const float *x, const void *y) {
#pragma clang fp reassociate(on)
    float sum = 0;
#pragma clang loop vectorize(assume_safety) vectorize_width(16) interleave_count(1)
    for (long i = 0; i < n; i++) sum += x[i] * ck_load(T, y, i);
    return sum;
}

CK_INLINE void backward_share(ck_dtype T, const pass *p, long share) {
    const long N = p->N, D = p->D, stride = p->stride, dense = p->heads * D;
    const long queries = ck_min(QUERIES, N), keys = ck_min(KEYS, N);
    float *kSpace = (float *)p->scratch + share * share_floats(N, D), *vSpace = kSpace + N * D;
    float *gkSpace = vSpace + N * D, *gvSpace = gkSpace + N * D, *qSpace = gvSpace + N * D;
    float *goSpace = qSpace + queries * D, *gqSpace = goSpace + queries * D;
    float *scores = gqSpace + queries * D, *gradients = scores + queries * keys;
    float *delta = gradients + queries * keys;
    for (long bh = p->tasks * share / p->shares; bh < p->tasks * (share + 1) / p->shares; bh++) {
        long b = bh / p->heads, h = bh % p->heads, base = b * N * stride + h * D;
        matrix k = as_float(T, N, D, ck_at(T, p->k, base), stride, kSpace);
        matrix v = as_float(T, N, D, ck_at(T, p->v, base), stride, vSpace);
        // fp32 gradients are accumulated in place, bf16 gradients in scratch memory.
        float *gk = T == CK_F32 ? (float *)p->gk + base : gkSpace;
        float *gv = T == CK_F32 ? (float *)p->gv + base : gvSpace;
        long ld = T == CK_F32 ? stride : D;
        for (long first = 0; first < N; first += QUERIES) {
            long rows = ck_min(QUERIES, N - first), at = (b * N + first) * dense + h * D;
            matrix q = as_float(T, rows, D, ck_at(T, p->q, base + first * stride), stride, qSpace);
            matrix go = as_float(T, rows, D, ck_at(T, p->go, at), dense, goSpace);
            float *gq = T == CK_F32 ? (float *)p->gq + base + first * stride : gqSpace;
            for (long row = 0; row < rows; row++)
                delta[row] = dot(T, D, go.data + row * go.stride, ck_at(T, p->o, at + row * dense));
            for (long key = 0; key < N; key += KEYS) {
                long n = ck_min(KEYS, N - key);
                matrix kBlock = {k.data + key * k.stride, k.stride};
                matrix vBlock = {v.data + key * v.stride, v.stride};
                product(0, 1, rows, n, D, p->scale, q, kBlock, 0, scores, n);
                product(0, 1, rows, n, D, 1, go, vBlock, 0, gradients, n);
                for (long row = 0; row < rows; row++)
                    score_gradients(n, p->scale, p->lse[bh * N + first + row], delta[row], scores + row * n,
                                    gradients + row * n);
                matrix probability = {scores, n}, gradient = {gradients, n};
                product(1, 0, n, D, rows, 1, probability, go, first == 0 ? 0 : 1, gv + key * ld, ld);
                product(1, 0, n, D, rows, 1, gradient, q, first == 0 ? 0 : 1, gk + key * ld, ld);
                product(0, 0, rows, D, n, 1, gradient, kBlock, key == 0 ? 0 : 1, gq, ld);
            }
            if (T != CK_F32)
                store_rows(T, rows, D, gqSpace, ck_at_mutable(T, p->gq, base + first * stride), stride);
        }
        if (T != CK_F32) {
            store_rows(T, N, D, gkSpace, ck_at_mutable(T, p->gk, base), stride);
            store_rows(T, N, D, gvSpace, ck_at_mutable(T, p->gv, base), stride);
        }
    }
}

CK_KERNEL static void backward_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long share = begin; share < end; share++) CK_BY_TYPE(p->dtype, backward_share(T, p, share));
}

void ck_attention_backward(ck_dtype dtype, long B, long N, long heads, long D, float scale, const void *q,
                           const void *k, const void *v, long stride, const void *o, const float *lse,
                           const void *go, void *gq, void *gk, void *gv, void *scratch) {
    pass p = make_pass(dtype, B, N, heads, D, scale, stride, scratch);
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
}
