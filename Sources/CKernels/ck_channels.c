// Operations with values per sample and channel: the sum with the time embedding, and its scale and shift.
// x is [B, P, C].
//
// In the forward pass the rows b·P + p are divided among the threads. In the backward pass the gradients of [B, C] are
// sums over p: a task is one sample and one tile of channels, so the order of a sum does not depend on the number of
// threads.
#include "ck_vector.h"

enum { TILE = 128, CHUNK = 64 };  // channels per task; rows summed in fp32 before they are added to a double

typedef struct {
    ck_dtype dtype;
    long B, P, C;
    const void *x, *t, *gy, *addend;
    void *y, *gt;
} pass;

static void parallel_rows(const pass *p, void (*body)(void *, long, long)) {
    ck_parallel(p->B * p->P, ck_max(1, CK_GRAIN / ck_max(1, p->C)), body, (void *)p);
}

static void parallel_tiles(const pass *p, void (*body)(void *, long, long)) {
    long tiles = (p->C + TILE - 1) / TILE;
    ck_parallel(p->B * tiles, ck_max(1, CK_GRAIN / ck_max(1, p->P * ck_min(p->C, TILE))), body, (void *)p);
}

// MARK: add

CK_INLINE void add_forward(ck_dtype T, const pass *p, long begin, long end) {
    for (long row = begin; row < end; row++) {
        const void *x = ck_at(T, p->x, row * p->C), *t = ck_at(T, p->t, row / p->P * p->C);
        void *y = ck_at_mutable(T, p->y, row * p->C);
        CK_CHANNELS
        for (long c = 0; c < p->C; c++) ck_store(T, y, c, ck_load(T, x, c) + ck_load(T, t, c));
    }
}

CK_KERNEL static void add_forward_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, add_forward(T, p, begin, end));
}

void ck_add_channels_forward(ck_dtype dtype, long B, long P, long C, const void *x, const void *t, void *y) {
    pass p = {.dtype = dtype, .B = B, .P = P, .C = C, .x = x, .t = t, .y = y};
    parallel_rows(&p, add_forward_body);
}

/// total[c] = sum over rows of gy[row, c], for `width` channels; if x is given, weighted[c] = sum of gy·x.
CK_INLINE void sum_rows(ck_dtype T, int has_x, long rows, long width, long C, const void *gy, const void *x,
                        double *total, double *weighted) {
    float part[TILE], weightedPart[TILE];
    for (long c = 0; c < width; c++) total[c] = weighted[c] = 0;
    for (long first = 0; first < rows; first += CHUNK) {
        for (long c = 0; c < width; c++) part[c] = weightedPart[c] = 0;
        for (long row = first; row < ck_min(first + CHUNK, rows); row++) {
            const void *g = ck_at(T, gy, row * C), *v = ck_at(T, x, row * C);
            CK_CHANNELS
            for (long c = 0; c < width; c++) {
                float value = ck_load(T, g, c);
                part[c] += value;
                if (has_x) weightedPart[c] += value * ck_load(T, v, c);
            }
        }
        for (long c = 0; c < width; c++) total[c] += part[c], weighted[c] += weightedPart[c];
    }
}

CK_INLINE void add_backward(ck_dtype T, const pass *p, long begin, long end) {
    long tiles = (p->C + TILE - 1) / TILE;
    double total[TILE], unused[TILE];
    for (long task = begin; task < end; task++) {
        long b = task / tiles, first = task % tiles * TILE, width = ck_min(TILE, p->C - first);
        long at = b * p->C + first;
        sum_rows(T, 0, p->P, width, p->C, ck_at(T, p->gy, b * p->P * p->C + first), NULL, total, unused);
        for (long c = 0; c < width; c++) {
            double added = p->addend ? ck_load(T, p->addend, at + c) : 0;
            ck_store(T, p->gt, at + c, (float)(total[c] + added));
        }
    }
}

CK_KERNEL static void add_backward_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, add_backward(T, p, begin, end));
}

void ck_add_channels_backward(
    ck_dtype dtype, long B, long P, long C, const void *gy, const void *addend, void *gt) {
    pass p = {.dtype = dtype, .B = B, .P = P, .C = C, .gy = gy, .addend = addend, .gt = gt};
    parallel_tiles(&p, add_backward_body);
}

// MARK: scale and shift

CK_INLINE void scale_shift_forward(ck_dtype T, const pass *p, long begin, long end) {
    for (long row = begin; row < end; row++) {
        const void *x = ck_at(T, p->x, row * p->C), *s = ck_at(T, p->t, row / p->P * 2 * p->C);
        const void *t = ck_at(T, s, p->C);
        void *y = ck_at_mutable(T, p->y, row * p->C);
        CK_CHANNELS
        for (long c = 0; c < p->C; c++)
            ck_store(T, y, c, ck_load(T, x, c) * (1.0f + ck_load(T, s, c)) + ck_load(T, t, c));
    }
}

CK_KERNEL static void scale_shift_forward_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, scale_shift_forward(T, p, begin, end));
}

void ck_scale_shift_forward(ck_dtype dtype, long B, long P, long C, const void *x, const void *st, void *y) {
    pass p = {.dtype = dtype, .B = B, .P = P, .C = C, .x = x, .t = st, .y = y};
    parallel_rows(&p, scale_shift_forward_body);
}

CK_INLINE void scale_shift_sums(ck_dtype T, const pass *p, long begin, long end) {
    long tiles = (p->C + TILE - 1) / TILE;
    double shift[TILE], scale[TILE];
    for (long task = begin; task < end; task++) {
        long b = task / tiles, first = task % tiles * TILE, width = ck_min(TILE, p->C - first);
        long at = b * p->P * p->C + first;
        sum_rows(T, 1, p->P, width, p->C, ck_at(T, p->gy, at), ck_at(T, p->x, at), shift, scale);
        void *gst = ck_at_mutable(T, p->gt, b * 2 * p->C + first);
        for (long c = 0; c < width; c++) {
            ck_store(T, gst, c, (float)scale[c]);
            ck_store(T, gst, p->C + c, (float)shift[c]);
        }
    }
}

CK_KERNEL static void scale_shift_sums_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE(p->dtype, scale_shift_sums(T, p, begin, end));
}

CK_INLINE void scale_shift_backward(ck_dtype T, int add, const pass *p, long begin, long end) {
    for (long row = begin; row < end; row++) {
        const void *gy = ck_at(T, p->gy, row * p->C), *s = ck_at(T, p->t, row / p->P * 2 * p->C);
        const void *addend = ck_at(T, p->addend, row * p->C);
        void *gx = ck_at_mutable(T, p->y, row * p->C);
        CK_CHANNELS
        for (long c = 0; c < p->C; c++) {
            float g = ck_load(T, gy, c) * (1.0f + ck_load(T, s, c));
            if (add) g += ck_load(T, addend, c);
            ck_store(T, gx, c, g);
        }
    }
}

CK_KERNEL static void scale_shift_backward_body(void *context, long begin, long end) {
    const pass *p = context;
    CK_BY_TYPE_AND_FLAG(p->dtype, p->addend != NULL, scale_shift_backward(T, FLAG, p, begin, end));
}

void ck_scale_shift_backward(ck_dtype dtype, long B, long P, long C, const void *x, const void *st,
                             const void *gy, const void *addend, void *gx, void *gst) {
    pass p = {.dtype = dtype, .B = B, .P = P, .C = C, .x = x, .t = st, .gy = gy, .addend = addend, .y = gx,
              .gt = gst};
    parallel_tiles(&p, scale_shift_sums_body);  // must run first: gx may overwrite gy or x
    parallel_rows(&p, scale_shift_backward_body);
}
