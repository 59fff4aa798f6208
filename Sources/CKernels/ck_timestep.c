// The sinusoidal embedding of a timestep. It has only a few thousand numbers, so the code matches PyTorch and is not
// optimized for speed.
#include "ck_vector.h"

#include <math.h>

void ck_timestep_embedding(
    ck_dtype dtype, long B, long dim, const float *t, int flip_sin_to_cos, float freq_shift, void *y) {
    long half = dim / 2, sinAt = flip_sin_to_cos ? half : 0, cosAt = flip_sin_to_cos ? 0 : half;
    const float logMaxPeriod = 9.210340371976184f;  // ln 10000
    const float denominator = (float)half - freq_shift;
    for (long i = 0; i < half; i++) {
        float frequency = expf(-logMaxPeriod * (float)i / denominator);
        for (long b = 0; b < B; b++) {
            float angle = t[b] * frequency;
            ck_store(dtype, y, b * dim + sinAt + i, sinf(angle));
            ck_store(dtype, y, b * dim + cosAt + i, cosf(angle));
        }
    }
    if (dim % 2)
        for (long b = 0; b < B; b++) ck_store(dtype, y, b * dim + dim - 1, 0);
}
