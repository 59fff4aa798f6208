// Concatenation along channels, and its backward pass. Rows are pixels or tokens.
#include "ck_vector.h"

typedef struct {
    ck_dtype dtype;
    long total, start, width;
    const void *a, *b, *addend;
    void *y;
} pass;

static void parallel_rows(long rows, long width, void (*body)(void *, long, long), pass *p) {
    ck_parallel(rows, ck_max(1, CK_GRAIN / ck_max(1, width)), body, p);
}

static void concat_body(void *context, long begin, long end) {
    const pass *p = context;
    size_t size = ck_size(p->dtype), total = (size_t)p->total * size, left = (size_t)p->start * size;
    size_t right = (size_t)p->width * size;
    for (long row = begin; row < end; row++) {
        char *y = (char *)p->y + row * total;
        memcpy(y, (const char *)p->a + row * left, left);
        memcpy(y + left, (const char *)p->b + row * right, right);
    }
}

void ck_concat_forward(ck_dtype dtype, long rows, long A, long B, const void *a, const void *b, void *y) {
    pass p = {.dtype = dtype, .total = A + B, .start = A, .width = B, .a = a, .b = b, .y = y};
    parallel_rows(rows, A + B, concat_body, &p);
}

CK_INLINE void slice_add(ck_dtype T, const pass *p, long begin, long end) {
    for (long row = begin; row < end; row++) {
        const void *x = ck_at(T, p->a, row * p->total + p->start);
        const void *addend = ck_at(T, p->addend, row * p->width);
        void *y = ck_at_mutable(T, p->y, row * p->width);
        CK_CHANNELS
        for (long c = 0; c < p->width; c++) ck_store(T, y, c, ck_load(T, x, c) + ck_load(T, addend, c));
    }
}

CK_KERNEL static void slice_body(void *context, long begin, long end) {
    const pass *p = context;
    if (p->addend) {
        CK_BY_TYPE(p->dtype, slice_add(T, p, begin, end));
        return;
    }
    for (long row = begin; row < end; row++)
        memcpy(ck_at_mutable(p->dtype, p->y, row * p->width),
               ck_at(p->dtype, p->a, row * p->total + p->start), (size_t)p->width * ck_size(p->dtype));
}

void ck_slice_columns(ck_dtype dtype, long rows, long total, long start, long width, const void *y,
                      const void *addend, void *part) {
    pass p = {.dtype = dtype, .total = total, .start = start, .width = width, .a = y, .addend = addend,
              .y = part};
    parallel_rows(rows, width, slice_body, &p);
}

static void place_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long row = begin; row < end; row++)
        memcpy(ck_at_mutable(p->dtype, p->y, row * p->total + p->start),
               ck_at(p->dtype, p->a, row * p->width), (size_t)p->width * ck_size(p->dtype));
}

void ck_place_columns(
    ck_dtype dtype, long rows, long total, long start, long width, const void *part, void *y) {
    pass p = {.dtype = dtype, .total = total, .start = start, .width = width, .a = part, .y = y};
    parallel_rows(rows, width, place_body, &p);
}
