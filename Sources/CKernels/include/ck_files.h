#pragma once

// System calls that Swift cannot see.

#ifdef __cplusplus
extern "C" {
#endif

/// Exchanges two names in one step (renameat2 with RENAME_EXCHANGE), so that at no moment one of them is missing.
///
/// Returns 0, or -1 with errno: EINVAL where the file system cannot do it, as some network file systems.
int ck_exchange_names(const char *first, const char *second);

#ifdef __cplusplus
}
#endif
