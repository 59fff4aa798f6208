// 3×3 pooling, image means, ReLU and bilinear resizing for networks that are only evaluated. fp32 NHWC, forward only.
#include "ck_vector.h"

typedef struct {
    long H, W, C, OH, OW, stride, padding;
    float scale, shift;
    const float *x;
    float *y;
} pass;

/// Distributes the rows b·OH + h of the result over the threads.
static void parallel_rows(long B, pass *p, void (*body)(void *, long, long)) {
    ck_parallel(B * p->OH, ck_max(1, CK_GRAIN / 8 / ck_max(1, p->OW * p->C)), body, p);
}

CK_INLINE long clamp(long i, long n) { return ck_max(0, ck_min(i, n - 1)); }
CK_INLINE float larger(float a, float b) { return a > b ? a : b; }

// MARK: windows

/// A pixel outside the image is replaced by the nearest one inside, which is part of the window anyway.
CK_KERNEL static void max_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long row = begin; row < end; row++) {
        const float *image = p->x + row / p->OH * p->H * p->W * p->C, *line[3];
        long top = row % p->OH * p->stride - p->padding;
        for (long i = 0; i < 3; i++) line[i] = image + clamp(top + i, p->H) * p->W * p->C;
        for (long w = 0; w < p->OW; w++) {
            long left = w * p->stride - p->padding;
            long a = clamp(left, p->W) * p->C, b = clamp(left + 1, p->W) * p->C, d = clamp(left + 2, p->W) * p->C;
            float *y = p->y + (row * p->OW + w) * p->C;
            CK_CHANNELS
            for (long c = 0; c < p->C; c++) {
                float first = larger(larger(line[0][a + c], line[0][b + c]), line[0][d + c]);
                float second = larger(larger(line[1][a + c], line[1][b + c]), line[1][d + c]);
                float third = larger(larger(line[2][a + c], line[2][b + c]), line[2][d + c]);
                y[c] = larger(larger(first, second), third);
            }
        }
    }
}

void ck_max_pool3(long B, long H, long W, long C, long stride, long padding, const float *x, float *y) {
    pass p = {.H = H, .W = W, .C = C, .stride = stride, .padding = padding, .x = x, .y = y,
              .OH = (H + 2 * padding - 3) / stride + 1, .OW = (W + 2 * padding - 3) / stride + 1};
    parallel_rows(B, &p, max_body);
}

CK_KERNEL static void mean_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long row = begin; row < end; row++) {
        const float *image = p->x + row / p->OH * p->H * p->W * p->C;
        long h = row % p->OH, top = ck_max(0, h - 1), bottom = ck_min(p->H - 1, h + 1);
        for (long w = 0; w < p->OW; w++) {
            long left = ck_max(0, w - 1), right = ck_min(p->W - 1, w + 1);
            float share = 1.0f / (float)((bottom - top + 1) * (right - left + 1));
            float *y = p->y + (row * p->OW + w) * p->C;
            memset(y, 0, (size_t)p->C * sizeof *y);
            for (long i = top; i <= bottom; i++)
                for (long j = left; j <= right; j++) {
                    const float *x = image + (i * p->W + j) * p->C;
                    CK_CHANNELS
                    for (long c = 0; c < p->C; c++) y[c] += x[c];
                }
            CK_CHANNELS
            for (long c = 0; c < p->C; c++) y[c] *= share;
        }
    }
}

void ck_mean_pool3(long B, long H, long W, long C, const float *x, float *y) {
    pass p = {.H = H, .W = W, .C = C, .OH = H, .OW = W, .x = x, .y = y};
    parallel_rows(B, &p, mean_body);
}

// MARK: whole images

CK_KERNEL static void image_mean_body(void *context, long begin, long end) {
    const pass *p = context;
    long pixels = p->H * p->W;
    for (long b = begin; b < end; b++) {
        float *y = p->y + b * p->C;
        memset(y, 0, (size_t)p->C * sizeof *y);
        for (long pixel = 0; pixel < pixels; pixel++) {
            const float *x = p->x + (b * pixels + pixel) * p->C;
            CK_CHANNELS
            for (long c = 0; c < p->C; c++) y[c] += x[c];
        }
        for (long c = 0; c < p->C; c++) y[c] /= (float)pixels;
    }
}

void ck_image_mean(long B, long H, long W, long C, const float *x, float *y) {
    pass p = {.H = H, .W = W, .C = C, .x = x, .y = y};
    ck_parallel(B, ck_max(1, CK_GRAIN / ck_max(1, H * W * C)), image_mean_body, &p);
}

// MARK: ReLU

CK_KERNEL static void relu_body(void *context, long begin, long end) {
    const pass *p = context;
    const float *x = p->x;
    float *y = p->y;
    CK_LOOP
    for (long i = begin; i < end; i++) y[i] = larger(x[i], 0);
}

void ck_relu(long n, const float *x, float *y) {
    pass p = {.x = x, .y = y};
    ck_parallel(n, CK_GRAIN, relu_body, &p);
}

/// Here the result is `W` columns of rows with `C` columns, starting at column `padding`.
CK_KERNEL static void place_relu_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long row = begin; row < end; row++) {
        const float *x = p->x + row * p->W;
        float *y = p->y + row * p->C + p->padding;
        CK_CHANNELS
        for (long c = 0; c < p->W; c++) y[c] = larger(x[c], 0);
    }
}

void ck_place_columns_relu(long rows, long total, long start, long width, const float *part, float *y) {
    pass p = {.W = width, .C = total, .padding = start, .x = part, .y = y};
    ck_parallel(rows, ck_max(1, CK_GRAIN / ck_max(1, width)), place_relu_body, &p);
}

// MARK: bilinear resizing

/// Source position of a result pixel in a line of n pixels: between `low` and `high`, at fraction `weight`.
typedef struct {
    long low, high;
    float weight;
} between;

CK_INLINE between place(long i, long from, long to) {
    float at = (float)from / (float)to * ((float)i + 0.5f) - 0.5f;
    if (at < 0) at = 0;
    between b = {(long)at, (long)at + 1, 0};
    if (b.low >= from - 1) b.low = b.high = from - 1;
    b.weight = at - (float)b.low;
    return b;
}

static void resize_body(void *context, long begin, long end) {
    const pass *p = context;
    for (long row = begin; row < end; row++) {
        const float *image = p->x + row / p->OH * p->H * p->W * p->C;
        between h = place(row % p->OH, p->H, p->OH);
        const float *above = image + h.low * p->W * p->C, *below = image + h.high * p->W * p->C;
        for (long i = 0; i < p->OW; i++) {
            between w = place(i, p->W, p->OW);
            float *y = p->y + (row * p->OW + i) * p->C;
            for (long c = 0; c < p->C; c++) {
                float a = above[w.low * p->C + c], b = above[w.high * p->C + c];
                float d = below[w.low * p->C + c], e = below[w.high * p->C + c];
                float upper = a + w.weight * (b - a), lower = d + w.weight * (e - d);
                y[c] = p->scale * (upper + h.weight * (lower - upper)) + p->shift;
            }
        }
    }
}

void ck_resize_bilinear(long B, long H, long W, long C, long OH, long OW, float scale, float shift,
                        const float *x, float *y) {
    pass p = {.H = H, .W = W, .C = C, .OH = OH, .OW = OW, .scale = scale, .shift = shift, .x = x, .y = y};
    parallel_rows(B, &p, resize_body);
}
