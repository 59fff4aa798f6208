// Inverted dropout (Srivastava et al., 2014). The backward pass draws the mask again instead of storing it.
#include "ck_vector.h"

enum { BLOCKS = 64, SEGMENT = 4 * BLOCKS };  // Philox generates four numbers per block

// CounterRandom's key for the purpose "dropout", with the layer mixed into the seed.
static const uint64_t PURPOSE = 5 * UINT64_C(0x9E3779B97F4A7C15), LAYER = UINT64_C(0xBF58476D1CE4E5B9);

typedef struct {
    ck_dtype dtype;
    long perSample, segments;
    float p, scale;
    uint64_t key, step;
    const int64_t *samples;
    const void *x, *addend;
    void *y;
} pass;

/// Numbers first·4 ..< (first + BLOCKS)·4 of the stream (key; sample, step), numbered as in CounterRandom.
CK_INLINE void philox(uint64_t key, uint64_t step, uint64_t sample, uint32_t first, uint32_t *numbers) {
    uint32_t high = (uint32_t)((sample >> 32) & 0xFFFF) | (uint32_t)((step >> 32) & 0xFFFF) << 16;
    CK_CHANNELS
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t c0 = first + i, c1 = (uint32_t)sample, c2 = (uint32_t)step, c3 = high;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        for (int round = 0; round < 10; round++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
            c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
            c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
            c3 = (uint32_t)p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        numbers[4 * i] = c0;
        numbers[4 * i + 1] = c1;
        numbers[4 * i + 2] = c2;
        numbers[4 * i + 3] = c3;
    }
}

CK_INLINE void drop(ck_dtype T, int add, long n, float p, float scale, const uint32_t *numbers, const void *x,
                    const void *addend, void *y) {
    CK_LOOP
    for (long i = 0; i < n; i++) {
        float uniform = (float)(int32_t)(numbers[i] >> 8) * 0x1p-24f;
        float value = uniform >= p ? ck_load(T, x, i) * scale : 0.0f;
        if (add) value += ck_load(T, addend, i);
        ck_store(T, y, i, value);
    }
}

CK_KERNEL static void body(void *context, long begin, long end) {
    const pass *p = context;
    uint32_t numbers[SEGMENT];
    for (long task = begin; task < end; task++) {
        long b = task / p->segments, first = task % p->segments * SEGMENT;
        long n = ck_min(SEGMENT, p->perSample - first), at = b * p->perSample + first;
        philox(p->key, p->step, (uint64_t)p->samples[b], (uint32_t)(first / 4), numbers);
        CK_BY_TYPE_AND_FLAG(p->dtype, p->addend != NULL,
                            drop(T, FLAG, n, p->p, p->scale, numbers, ck_at(T, p->x, at),
                                 ck_at(T, p->addend, at), ck_at_mutable(T, p->y, at)));
    }
}

void ck_dropout(ck_dtype dtype, long B, long perSample, float p, uint64_t seed, uint32_t layer, uint64_t step,
                const int64_t *samples, const void *x, const void *addend, void *y) {
    pass settings = {.dtype = dtype,
                     .perSample = perSample,
                     .segments = (perSample + SEGMENT - 1) / SEGMENT,
                     .p = p,
                     .scale = p < 1 ? 1 / (1 - p) : 0,
                     .key = seed + layer * LAYER + PURPOSE,
                     .step = step,
                     .samples = samples,
                     .x = x,
                     .addend = addend,
                     .y = y};
    ck_parallel(B * settings.segments, 16, body, &settings);
}
