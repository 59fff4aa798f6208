// CKernels: the loops that Swift cannot vectorise, and the libraries it cannot call.
//
// Swift compiles floating-point sums one element at a time and targets baseline x86-64; these files are
// plain C, cloned by the compiler for AVX-512, AVX2 and baseline, and chosen when the program loads.
// Conventions: NHWC, row-major. `void *` tensors carry a ck_dtype; statistics, weights of norms, biases,
// gradients of parameters and losses are always fp32. An `addend` may be NULL; otherwise it has the output's
// shape and type, is added to the result, and may be the output itself. No kernel allocates in its steady state.
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
