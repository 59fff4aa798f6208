// CRC-32C (Castagnoli, polynomial 0x1EDC6F41): the checksum of checkpoint files. In C for the processor's
// own instruction, which makes it faster than any disk; a table of eight slices serves other processors.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Continues the checksum `crc` of the bytes so far (0 at first) over `count` more bytes.
uint32_t ck_crc32c(uint32_t crc, const void *bytes, size_t count);

/// The same by table, on any processor: the reference that tests compare with.
uint32_t ck_crc32c_portable(uint32_t crc, const void *bytes, size_t count);

/// The checksum of two pieces one after the other, from the checksums of each and the length of the second:
/// a file's data can be summed in memory before its header is known.
uint32_t ck_crc32c_combine(uint32_t first, uint32_t second, size_t second_count);

#ifdef __cplusplus
}
#endif
