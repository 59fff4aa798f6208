// Definitions shared by the passes of Winograd convolution: the plan, and how its work is divided.
#pragma once
#include "conv_plan.h"
#include "winograd_product.h"
#include "winograd_tiles.h"

enum { groupTiles = 8 };  // tiles whose transforms are one task

typedef struct {
    ck_conv base;
    wino_images source, target;  // of the pass: x and y, or gy and gx; in backward-weights x and gy
    int few;                     // all tiles are processed at once: see the passes
    long rows;                   // tiles per block, even in forward and backward-data
    long slots;                  // shares of the work, one per thread
    long panels;                 // channel panels of a chunk: of outputs, in backward-weights of inputs
    long block;                  // inputs (forward with few tiles) or outputs (backward-weights) of a chunk
    size_t sharedFloats, slotFloats;
} wino_plan;

void wino_plan_forward(wino_plan *p);
void wino_forward(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend,
                  void *y, void *scratch);
void wino_backward_data(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch);

void wino_plan_gradient(wino_plan *p);
void wino_backward_weights(ck_conv *conv, const void *x, const void *gy, float *gw, float *gb, int accumulate,
                           void *scratch);

// Number of rows and panels of a product that fit into registers.
static inline long wino_most_rows(void) { return ck_vector_bits() >= 512 ? 14 : 6; }
static inline int wino_takes_pairs(void) { return ck_vector_bits() >= 512; }
