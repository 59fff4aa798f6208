#include "alpha.h"
#include "cimagefiles.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

void cimg_free(void *memory) { free(memory); }

static void fail(png_structp png, png_const_charp message) {
    char *out = png_get_error_ptr(png);
    strncpy(out, message, CIMG_MESSAGE_LENGTH - 1);
    out[CIMG_MESSAGE_LENGTH - 1] = 0;
    png_longjmp(png, 1);
}

// libpng's warnings are harmless (a bad colour profile, an invalid time); a loss of pixels is reported as an error.
static void ignore_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

typedef struct {
    const uint8_t *next;
    size_t left;
} reader;

static void read_bytes(png_structp png, png_bytep into, size_t count) {
    reader *from = png_get_io_ptr(png);
    if (count > from->left) png_error(png, "the file ends too early");
    memcpy(into, from->next, count);
    from->next += count;
    from->left -= count;
}

cimg_status cimg_decode_png(const uint8_t *bytes, size_t count, uint64_t max_pixels, cimg_picture *out) {
    memset(out, 0, sizeof *out);
    reader from = {bytes, count};
    png_infop info = NULL;
    // Modified between setjmp and a possible longjmp, so they must be volatile.
    uint8_t *volatile pixels = NULL;
    volatile cimg_status status = CIMG_CORRUPT;

    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, out->message, fail, ignore_warning);
    if (png) info = png_create_info_struct(png);
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        strcpy(out->message, "out of memory");
        return CIMG_OUT_OF_MEMORY;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &info, NULL);
        free(pixels);
        out->pixels = NULL;
        return status;
    }
    png_set_read_fn(png, &from, read_bytes);
    png_read_info(png, info);
    uint32_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
    out->width = width;
    out->height = height;
    if ((uint64_t)width * height > max_pixels) {
        status = CIMG_TOO_LARGE;
        png_error(png, "too many pixels");
    }

    png_set_expand(png);  // palette to RGB; 1, 2 and 4 bits to 8; a transparent colour to alpha
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    size_t channels = png_get_channels(png, info);
    size_t row = (size_t)width * channels;
    if ((channels != 3 && channels != 4) || png_get_rowbytes(png, info) != row) {
        png_error(png, "a kind of PNG that is not known");
    }
    pixels = malloc(row * height);
    if (!pixels) {
        status = CIMG_OUT_OF_MEMORY;
        png_error(png, "out of memory");
    }
    for (int pass = 0; pass < passes; pass++) {
        for (uint32_t y = 0; y < height; y++) png_read_row(png, pixels + row * y, NULL);
    }
    png_read_end(png, NULL);  // reads the chunks after the pixels, so that a truncated file is detected
    png_destroy_read_struct(&png, &info, NULL);

    if (channels == 4) composite_on_white(pixels, (size_t)width * height);
    out->pixels = pixels;
    return CIMG_OK;
}

static void write_bytes(png_structp png, png_bytep from, size_t count) {
    cimg_file *out = png_get_io_ptr(png);
    // The capacity doubles: it is the smallest power of two that is at least `count`, and at least 1024.
    size_t capacity = 1024;
    while (capacity < out->count) capacity *= 2;
    if (!out->bytes || out->count + count > capacity) {
        while (capacity < out->count + count) capacity *= 2;
        uint8_t *grown = realloc(out->bytes, capacity);
        if (!grown) png_error(png, "out of memory");
        out->bytes = grown;
    }
    memcpy(out->bytes + out->count, from, count);
    out->count += count;
}

static void flush_nothing(png_structp png) { (void)png; }

cimg_status cimg_encode_png(
    const uint8_t *pixels, uint32_t width, uint32_t height, int channels, const char *const *keys,
    const char *const *values, size_t text_count, cimg_file *out) {
    memset(out, 0, sizeof *out);
    png_infop info = NULL;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, out->message, fail, ignore_warning);
    if (png) info = png_create_info_struct(png);
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        strcpy(out->message, "out of memory");
        return CIMG_OUT_OF_MEMORY;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        free(out->bytes);
        out->bytes = NULL;
        return CIMG_CORRUPT;
    }
    png_set_write_fn(png, out, write_bytes, flush_nothing);
    png_set_IHDR(
        png, info, width, height, 8, channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
        PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    for (size_t i = 0; i < text_count; i++) {
        int ascii = 1;
        for (const char *c = values[i]; *c; c++) ascii &= (unsigned char)*c < 128;
        png_text text = {0};
        // All viewers show tEXt, but it is Latin-1 only. Values that are not ASCII are written as iTXt.
        text.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        text.key = (png_charp)keys[i];
        text.text = (png_charp)values[i];
        png_set_text(png, info, &text, 1);
    }
    png_write_info(png, info);
    for (uint32_t y = 0; y < height; y++) png_write_row(png, pixels + (size_t)channels * width * y);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return CIMG_OK;
}
