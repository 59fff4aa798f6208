// CKernels: loops that Swift cannot vectorize, and libraries that it cannot call.
//
// Swift compiles floating-point sums one element at a time and targets baseline x86-64. These files are plain C, which
// the compiler clones for AVX-512, AVX2 and baseline; the version is selected when the program is loaded. Conventions:
// NHWC, row-major. `void *` tensors have a ck_dtype; statistics, normalization weights, biases, parameter gradients and
// losses are always fp32. An `addend` may be NULL; otherwise it has the output's shape and type, is added to the
// result, and may be the output itself. No kernel allocates memory in its steady state.
#pragma once

#include "ck_parallel.h"
#include "ck_types.h"

#include "ck_attention.h"
#include "ck_conv.h"
#include "ck_crc32c.h"
#include "ck_dense.h"
#include "ck_edge.h"
#include "ck_files.h"
#include "ck_elementwise.h"
#include "ck_gemm.h"
#include "ck_group_norm.h"
#include "ck_loss.h"
#include "ck_optimizer.h"
#include "ck_spatial.h"
#include "ck_window.h"
