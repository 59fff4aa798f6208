// CRC-32C (Castagnoli, polynomial 0x1EDC6F41): the checksum of checkpoint files. Written in C to use the processor's
// CRC instruction, which is faster than any disk; other processors use a slicing-by-8 table.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Continues the checksum `crc` (initially 0) over `count` more bytes.
uint32_t ck_crc32c(uint32_t crc, const void *bytes, size_t count);

/// The table-based implementation for any processor: the reference for tests.
uint32_t ck_crc32c_portable(uint32_t crc, const void *bytes, size_t count);

/// The checksum of two concatenated pieces, from their checksums and the length of the second. This allows computing
/// the checksum of a file's data in memory before its header is known.
uint32_t ck_crc32c_combine(uint32_t first, uint32_t second, size_t second_count);

#ifdef __cplusplus
}
#endif
