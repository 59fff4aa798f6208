#pragma once

// System calls that Swift does not import.

#ifdef __cplusplus
extern "C" {
#endif

/// Exchanges two names atomically (renameat2 with RENAME_EXCHANGE), so that neither is missing at any moment.
///
/// Returns 0, or -1 with errno: EINVAL if the file system does not support it, like some network file systems.
int ck_exchange_names(const char *first, const char *second);

#ifdef __cplusplus
}
#endif
