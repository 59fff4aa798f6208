// CImageFiles: decodes PNG, JPEG and WebP, and encodes PNG, in memory with libpng, libjpeg-turbo and libwebp.
//
// The first two report errors with longjmp, which must not cross Swift frames. Every jump here starts and ends inside
// one C function, which returns a status and a message. All functions are thread-safe: their state is on their own
// stack and heap.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CIMG_MESSAGE_LENGTH 256

typedef enum {
    CIMG_OK = 0,
    CIMG_CORRUPT = 1,        // the library rejected the data; the message is that of the library
    CIMG_TOO_LARGE = 2,      // more pixels than allowed; no memory was allocated for them
    CIMG_OUT_OF_MEMORY = 3,
} cimg_status;

typedef struct {
    uint8_t *pixels;  // RGB8, rows from top to bottom without padding; owned by the caller, freed by cimg_free
    uint32_t width;
    uint32_t height;
    char message[CIMG_MESSAGE_LENGTH];  // set unless the status is CIMG_OK
} cimg_picture;

typedef struct {
    uint8_t *bytes;  // owned by the caller, freed by cimg_free
    size_t count;
    char message[CIMG_MESSAGE_LENGTH];
} cimg_file;

// Decodes a PNG of any colour type and depth to RGB8. Alpha is composited on white, and 16 bits are scaled to 8. A file
// without an IEND chunk is CIMG_CORRUPT.
cimg_status cimg_decode_png(const uint8_t *bytes, size_t count, uint64_t max_pixels, cimg_picture *out);

// Decodes a JPEG to RGB8. CMYK and YCCK are converted, with Adobe's inversion if the file has an Adobe marker.
// libjpeg's warnings about the data (premature end, bad Huffman code, ...) are reported as CIMG_CORRUPT, because
// libjpeg would otherwise fill the missing part with grey and report success. The EXIF orientation is not applied.
cimg_status cimg_decode_jpeg(const uint8_t *bytes, size_t count, uint64_t max_pixels, cimg_picture *out);

// Decodes a still WebP, lossy or lossless, to RGB8. Alpha is composited on white as for PNG. A file that is shorter
// than its RIFF header states is CIMG_CORRUPT, and so is an animation. The EXIF orientation is not applied.
cimg_status cimg_decode_webp(const uint8_t *bytes, size_t count, uint64_t max_pixels, cimg_picture *out);

// Encodes RGB8 (channels = 3) or gray (channels = 1) as PNG with `text_count` text chunks. Keys are Latin-1 with 1 to
// 79 bytes; values are UTF-8.
cimg_status cimg_encode_png(
    const uint8_t *pixels, uint32_t width, uint32_t height, int channels, const char *const *keys,
    const char *const *values, size_t text_count, cimg_file *out);

void cimg_free(void *memory);
