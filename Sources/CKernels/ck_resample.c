// Nearest-neighbour upsampling and average pooling by 2, NHWC. The backward pass of each has the form of the other:
// both sum or spread 2×2 blocks.
#include "ck_vector.h"

typedef struct {
    ck_dtype dtype;
    long H, W, C;  // of the smaller tensor, [B, H, W, C]; the larger is [B, 2H, 2W, C]
    float factor;
    const void *x, *addend;
    void *y;
} pass;

/// Distributes the rows b·H + h of the smaller tensor over the threads.
static void parallel_rows(long B, const pass *p, void (*body)(void *, long, long)) {
    ck_parallel(B * p->H, ck_max(1, CK_GRAIN / 4 / ck_max(1, p->W * p->C)), body, (void *)p);
}

// MARK: from one to four

static void copy_body(void *context, long begin, long end) {
    const pass *p = context;
    size_t pixel = (size_t)p->C * ck_size(p->dtype), line = 2 * (size_t)p->W * pixel;
    for (long row = begin; row < end; row++) {
        const char *x = ck_at(p->dtype, p->x, row * p->W * p->C);
        char *y = ck_at_mutable(p->dtype, p->y, row * 4 * p->W * p->C);
        for (long w = 0; w < 2 * p->W; w++) memcpy(y + w * pixel, x + w / 2 * pixel, pixel);
        memcpy(y + line, y, line);
    }
}

void ck_upsample_forward(ck_dtype dtype, long B, long H, long W, long C, const void *x, void *y) {
    pass p = {.dtype = dtype, .H = H, .W = W, .C = C, .x = x, .y = y};
    parallel_rows(B, &p, copy_body);
}

/// Each of the four pixels = factor·x + addend
CK_INLINE void spread(ck_dtype T, int add, const pass *p, long begin, long end) {
    for (long row = begin; row < end; row++)
        for (long pixel = 0; pixel < 4 * p->W; pixel++) {
            const void *x = ck_at(T, p->x, (row * p->W + pixel % (2 * p->W) / 2) * p->C);
            long at = (row * 4 * p->W + pixel) * p->C;
            const void *addend = ck_at(T, p->addend, at);
            void *y = ck_at_mutable(T, p->y, at);
            CK_CHANNELS
            for (long c = 0; c < p->C; c++)
                ck_store(T, y, c, p->factor * ck_load(T, x, c) + (add ? ck_load(T, addend, c) : 0));
        }
}

CK_KERNEL static void spread_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE_AND_FLAG(p->dtype, p->addend != NULL, spread(T, FLAG, p, begin, end));
}

void ck_average_pool_backward(
    ck_dtype dtype, long B, long H, long W, long C, const void *gy, const void *addend, void *gx) {
    pass p = {.dtype = dtype, .H = H / 2, .W = W / 2, .C = C, .factor = 0.25f, .x = gy,
              .addend = addend, .y = gx};
    parallel_rows(B, &p, spread_body);
}

// MARK: from four to one

/// factor·(sum of a 2×2 block of x) + addend
CK_INLINE void gather(ck_dtype T, int add, const pass *p, long begin, long end) {
    for (long row = begin; row < end; row++)
        for (long w = 0; w < p->W; w++) {
            const void *x00 = ck_at(T, p->x, (row * 4 * p->W + 2 * w) * p->C), *x01 = ck_at(T, x00, p->C);
            const void *x10 = ck_at(T, x00, 2 * p->W * p->C), *x11 = ck_at(T, x10, p->C);
            long at = (row * p->W + w) * p->C;
            const void *addend = ck_at(T, p->addend, at);
            void *y = ck_at_mutable(T, p->y, at);
            CK_CHANNELS
            for (long c = 0; c < p->C; c++) {
                float above = ck_load(T, x00, c) + ck_load(T, x01, c);
                float below = ck_load(T, x10, c) + ck_load(T, x11, c), sum = above + below;
                ck_store(T, y, c, p->factor * sum + (add ? ck_load(T, addend, c) : 0));
            }
        }
}

CK_KERNEL static void gather_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE_AND_FLAG(p->dtype, p->addend != NULL, gather(T, FLAG, p, begin, end));
}

void ck_upsample_backward(
    ck_dtype dtype, long B, long H, long W, long C, const void *gy, const void *addend, void *gx) {
    pass p = {.dtype = dtype, .H = H, .W = W, .C = C, .factor = 1, .x = gy, .addend = addend, .y = gx};
    parallel_rows(B, &p, gather_body);
}

void ck_average_pool_forward(ck_dtype dtype, long B, long H, long W, long C, const void *x, void *y) {
    pass p = {.dtype = dtype, .H = H / 2, .W = W / 2, .C = C, .factor = 0.25f, .x = x, .y = y};
    parallel_rows(B, &p, gather_body);
}
