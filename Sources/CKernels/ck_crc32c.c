#include "ck_crc32c.h"

#include <pthread.h>
#include <string.h>

// slices[0] advances the checksum by one byte; slices[k] by one byte followed by k zero bytes.
static uint32_t slices[8][256];
static pthread_once_t slices_ready = PTHREAD_ONCE_INIT;

static void make_slices(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);  // bits reversed
        slices[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int k = 1; k < 8; k++)
            slices[k][byte] = (slices[k - 1][byte] >> 8) ^ slices[0][slices[k - 1][byte] & 0xFF];
}

uint32_t ck_crc32c_portable(uint32_t crc, const void *bytes, size_t count) {
    pthread_once(&slices_ready, make_slices);
    const uint8_t *p = bytes;
    crc = ~crc;
    for (; count >= 8; count -= 8, p += 8) {
        uint32_t low = crc ^ (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        crc = slices[7][low & 0xFF] ^ slices[6][low >> 8 & 0xFF] ^ slices[5][low >> 16 & 0xFF] ^
              slices[4][low >> 24] ^ slices[3][p[4]] ^ slices[2][p[5]] ^ slices[1][p[6]] ^ slices[0][p[7]];
    }
    for (; count > 0; count--, p++) crc = (crc >> 8) ^ slices[0][(crc ^ *p) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t count) {
    uint64_t state = (uint32_t)~crc;
    for (; count >= 8; count -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        state = _mm_crc32_u64(state, word);
    }
    uint32_t tail = (uint32_t)state;
    for (; count > 0; count--, p++) tail = _mm_crc32_u8(tail, *p);
    return ~tail;
}

uint32_t ck_crc32c(uint32_t crc, const void *bytes, size_t count) {
    if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42(crc, bytes, count);
    return ck_crc32c_portable(crc, bytes, count);
}
#else
uint32_t ck_crc32c(uint32_t crc, const void *bytes, size_t count) {
    return ck_crc32c_portable(crc, bytes, count);
}
#endif

// Checksums are polynomials over GF(2) modulo the CRC polynomial, with reversed bits: bit 31 is x^0.
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit) product ^= b;
        b = (b >> 1) ^ (b & 1 ? 0x82F63B78u : 0);  // b times x
    }
    return product;
}

uint32_t ck_crc32c_combine(uint32_t first, uint32_t second, size_t second_count) {
    uint32_t power = 1u << 23;   // x^8: one more byte
    uint32_t shift = 1u << 31;   // x^0
    for (size_t n = second_count; n; n >>= 1) {
        if (n & 1) shift = multiply(power, shift);
        power = multiply(power, power);
    }
    return multiply(shift, first) ^ second;
}
