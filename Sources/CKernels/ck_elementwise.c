// Casts, sums and SiLU over n elements.
#include "ck_vector.h"

typedef struct {
    ck_dtype dtype, to;
    float alpha, beta;
    const void *a, *b, *addend;
    void *y;
} pass;

// MARK: cast, fill, add

CK_INLINE void cast(ck_dtype T, ck_dtype to, long n, const void *x, void *y) {
    CK_LOOP
    for (long i = 0; i < n; i++) ck_store(to, y, i, ck_load(T, x, i));
}

CK_KERNEL static void cast_body(void *context, long begin, long end) {
    const pass *p = context;
    const void *x = ck_at(p->dtype, p->a, begin);
    void *y = ck_at_mutable(p->to, p->y, begin);
    if (p->dtype == p->to)
        memcpy(y, x, (size_t)(end - begin) * ck_size(p->to));
    else if (p->to == CK_BF16)
        cast(CK_F32, CK_BF16, end - begin, x, y);
    else
        cast(CK_BF16, CK_F32, end - begin, x, y);
}

void ck_cast(ck_dtype from, ck_dtype to, long n, const void *x, void *y) {
    pass p = {.dtype = from, .to = to, .a = x, .y = y};
    ck_parallel(n, CK_GRAIN, cast_body, &p);
}

CK_INLINE void fill(ck_dtype T, long n, float value, void *y) {
    CK_LOOP
    for (long i = 0; i < n; i++) ck_store(T, y, i, value);
}

CK_KERNEL static void fill_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, fill(T, end - begin, p->alpha, ck_at_mutable(T, p->y, begin)));
}

void ck_fill(ck_dtype dtype, long n, float value, void *y) {
    pass p = {.dtype = dtype, .alpha = value, .y = y};
    ck_parallel(n, CK_GRAIN, fill_body, &p);
}

CK_INLINE void add(
    ck_dtype T, int both, long n, float alpha, const void *a, float beta, const void *b, void *y) {
    CK_LOOP
    for (long i = 0; i < n; i++) {
        float sum = alpha * ck_load(T, a, i);
        if (both) sum += beta * ck_load(T, b, i);
        ck_store(T, y, i, sum);
    }
}

CK_KERNEL static void add_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE_AND_FLAG(p->dtype, p->b != NULL,
                        add(T, FLAG, end - begin, p->alpha, ck_at(T, p->a, begin), p->beta,
                            ck_at(T, p->b, begin), ck_at_mutable(T, p->y, begin)));
}

void ck_add(ck_dtype dtype, long n, float alpha, const void *a, float beta, const void *b, void *y) {
    pass p = {.dtype = dtype, .alpha = alpha, .beta = beta, .a = a, .b = beta == 0 ? NULL : b, .y = y};
    ck_parallel(n, CK_GRAIN, add_body, &p);
}

// MARK: SiLU

CK_INLINE void silu_forward(ck_dtype T, long n, const void *x, void *y) {
    CK_LOOP
    for (long i = 0; i < n; i++) {
        float value = ck_load(T, x, i);
        ck_store(T, y, i, value * ck_sigmoid(value));
    }
}

CK_KERNEL static void silu_forward_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype,
               silu_forward(T, end - begin, ck_at(T, p->a, begin), ck_at_mutable(T, p->y, begin)));
}

void ck_silu_forward(ck_dtype dtype, long n, const void *x, void *y) {
    pass p = {.dtype = dtype, .a = x, .y = y};
    ck_parallel(n, CK_GRAIN, silu_forward_body, &p);
}

CK_INLINE void silu_backward(
    ck_dtype T, int add, long n, const void *x, const void *gy, const void *addend, void *gx) {
    CK_LOOP
    for (long i = 0; i < n; i++) {
        float g = ck_load(T, gy, i) * ck_silu_slope(ck_load(T, x, i));
        if (add) g += ck_load(T, addend, i);
        ck_store(T, gx, i, g);
    }
}

CK_KERNEL static void silu_backward_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE_AND_FLAG(p->dtype, p->addend != NULL,
                        silu_backward(T, FLAG, end - begin, ck_at(T, p->a, begin), ck_at(T, p->b, begin),
                                      ck_at(T, p->addend, begin), ck_at_mutable(T, p->y, begin)));
}

void ck_silu_backward(ck_dtype dtype, long n, const void *x, const void *gy, const void *addend, void *gx) {
    pass p = {.dtype = dtype, .a = x, .b = gy, .addend = addend, .y = gx};
    ck_parallel(n, CK_GRAIN, silu_backward_body, &p);
}
