#define _GNU_SOURCE
#include "ck_files.h"

#include <fcntl.h>
#include <stdio.h>

int ck_exchange_names(const char *first, const char *second) {
    return renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE);
}
