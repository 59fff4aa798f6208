#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { CK_F32 = 0, CK_BF16 = 1 } ck_dtype;

#ifdef __cplusplus
}
#endif
