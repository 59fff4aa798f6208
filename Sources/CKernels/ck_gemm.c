// fp32 matrix products on OpenBLAS, which runs single-threaded within each thread's share, and the detection of
// processor features.
#include "ck_gemm.h"

#include <cblas.h>
#include <stdio.h>

#include "ck_parallel.h"
#include "ck_vector.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

typedef struct {
    int transA, transB, byColumns;
    long M, N, K, lda, ldb, ldc;
    float alpha, beta;
    const float *A, *B;
    float *C;
} product;

// Computes rows (or columns) begin..<end of C.
static void multiply_share(void *context, long begin, long end) {
    const product *p = context;
    long rows = p->byColumns ? p->M : end - begin, columns = p->byColumns ? end - begin : p->N;
    const float *A = p->A, *B = p->B;
    float *C = p->C;
    if (p->byColumns) {
        B += p->transB ? begin * p->ldb : begin;
        C += begin;
    } else {
        A += p->transA ? begin : begin * p->lda;
        C += begin * p->ldc;
    }
    cblas_sgemm(CblasRowMajor, p->transA ? CblasTrans : CblasNoTrans, p->transB ? CblasTrans : CblasNoTrans,
                (int)rows, (int)columns, (int)p->K, p->alpha, A, (int)p->lda, B, (int)p->ldb, p->beta, C,
                (int)p->ldc);
}

void ck_sgemm(int transA, int transB, long M, long N, long K, float alpha, const float *A, long lda,
              const float *B, long ldb, float beta, float *C, long ldc) {
    product p = {transA, transB, N > M, M, N, K, lda, ldb, ldc, alpha, beta, A, B, C};
    // For a smaller product, waking the other threads (some microseconds) takes longer than it saves.
    double flops = 2.0 * (double)M * (double)N * (double)(K > 0 ? K : 1);
    long count = p.byColumns ? N : M;
    ck_parallel(count, flops < 2e6 ? count : 16, multiply_share, &p);
}

const char *ck_gemm_kernels(void) { return openblas_get_corename(); }

typedef struct {
    int avx2, avx512, vnni, bf16, amx;
} features;

static features find_features(void) {
    features found = {0};
#ifdef __x86_64__
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return found;  // OSXSAVE
    unsigned saved, high;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    // The operating system must also save the registers: bits 1-2 AVX, 5-7 AVX-512, 17-18 AMX tiles.
    int os_avx = CK_LEVEL >= 3 && (saved & 0x6) == 0x6;
    int os_avx512 = CK_LEVEL >= 4 && os_avx && (saved & 0xe0) == 0xe0;
    int os_amx = os_avx512 && (saved & 0x60000) == 0x60000;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    unsigned leaves = a;
    found.avx2 = os_avx && (b & (1u << 5));
    found.avx512 = os_avx512 && (b & (1u << 16)) && (b & (1u << 30));  // F and BW
    found.vnni = found.avx512 && (c & (1u << 11));
    found.amx = os_amx && (d & (1u << 22)) && (d & (1u << 24));  // AMX-BF16 and tiles
    if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) found.bf16 = found.avx512 && (a & (1u << 5));
#endif
    return found;
}

void ck_processor_features(char *text, size_t size) {
    features f = find_features();
    if (f.avx512) {
        const char *separator = " (";
        int length = snprintf(text, size, "AVX-512");
        const struct { int is_present; const char *name; } extensions[] = {
            {f.amx, "AMX"}, {f.bf16, "BF16"}, {f.vnni, "VNNI"}};
        for (int i = 0; i < 3 && length < (int)size; i++) {
            if (!extensions[i].is_present) continue;
            length += snprintf(text + length, size - (size_t)length, "%s%s", separator, extensions[i].name);
            separator = ", ";
        }
        if (separator[0] == ',' && length < (int)size) snprintf(text + length, size - (size_t)length, ")");
        return;
    }
#if defined(__x86_64__)
    snprintf(text, size, f.avx2 ? "AVX2" : "SSE2");
#elif defined(__aarch64__)
    snprintf(text, size, "NEON");
#else
    snprintf(text, size, "no known vector set");
#endif
}

int ck_vector_bits(void) {
    features f = find_features();
    return f.avx512 ? 512 : f.avx2 ? 256 : 128;
}

double ck_bf16_cost(void) {
    features f = find_features();
    return f.amx ? 0.125 : f.bf16 ? 0.5 : 1;
}

#ifdef DISTTRAIN_ONEDNN
// ONEDNN_MAX_CPU_ISA may prevent the library from using bf16.
int ck_onednn_allows_bf16(void);
#else
static int ck_onednn_allows_bf16(void) { return 1; }
#endif

int ck_has_native_bf16(void) {
    features f = find_features();
    return (f.bf16 || f.amx) && ck_onednn_allows_bf16();
}
