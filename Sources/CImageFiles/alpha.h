#pragma once

#include <stddef.h>
#include <stdint.h>

// Converts RGBA to RGB on white in place: the write position never passes the read position.
static inline void composite_on_white(uint8_t *pixels, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *from = pixels + 4 * i;
        uint32_t alpha = from[3];
        for (int c = 0; c < 3; c++) {
            pixels[3 * i + c] = (uint8_t)((from[c] * alpha + 255 * (255 - alpha) + 127) / 255);
        }
    }
}
