// CImageFiles: PNG and JPEG in memory, through libpng and libjpeg-turbo.
//
// Why it exists: both libraries report errors by longjmp, which must not cross Swift frames. Every jump here
// starts and ends inside one C function, and what comes out is a status and a message.
// All functions are thread safe: their state lives on their own stack and heap.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CIMG_MESSAGE_LENGTH 256

typedef enum {
    CIMG_OK = 0,
    CIMG_CORRUPT = 1,        // the library refused the data; the message is the library's own
    CIMG_TOO_LARGE = 2,      // more pixels than allowed; nothing was allocated for them
    CIMG_OUT_OF_MEMORY = 3,
} cimg_status;

typedef struct {
    uint8_t *pixels;  // RGB8, rows from the top without padding; owned by the caller, freed by cimg_free
    uint32_t width;
    uint32_t height;
    char message[CIMG_MESSAGE_LENGTH];  // set unless the status is CIMG_OK
} cimg_picture;

typedef struct {
    uint8_t *bytes;  // owned by the caller, freed by cimg_free
    size_t count;
    char message[CIMG_MESSAGE_LENGTH];
} cimg_file;

// Decodes a PNG of any colour type and depth to RGB8. Alpha is composited on white, 16 bits are scaled to 8.
// A file that ends before its IEND chunk is CIMG_CORRUPT.
cimg_status cimg_decode_png(const uint8_t *bytes, size_t count, uint64_t max_pixels, cimg_picture *out);

// Decodes a JPEG to RGB8. CMYK and YCCK are converted, with Adobe's inversion where its marker says so.
// libjpeg's warnings about the data (premature end, bad Huffman code, ...) are CIMG_CORRUPT, since libjpeg would
// otherwise fill the rest with grey and call it a success. The orientation in EXIF is not applied here.
cimg_status cimg_decode_jpeg(const uint8_t *bytes, size_t count, uint64_t max_pixels, cimg_picture *out);

// Encodes RGB8 as PNG with `text_count` text chunks: keys are Latin-1 of 1 to 79 bytes, values UTF-8.
cimg_status cimg_encode_png(
    const uint8_t *pixels, uint32_t width, uint32_t height, const char *const *keys, const char *const *values,
    size_t text_count, cimg_file *out);

void cimg_free(void *memory);
