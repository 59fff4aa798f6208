#include "cimagefiles.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

// A malicious progressive file can declare thousands of scans over a large image and occupy a processor for minutes;
// real encoders write about ten.
enum { max_scans = 200 };

typedef struct {
    struct jpeg_error_mgr base;  // must be first: libjpeg passes a pointer to it
    jmp_buf jump;
    char *message;
} error_manager;

static void fail(j_common_ptr jpeg) {
    error_manager *errors = (error_manager *)jpeg->err;
    char text[JMSG_LENGTH_MAX];
    errors->base.format_message(jpeg, text);
    snprintf(errors->message, CIMG_MESSAGE_LENGTH, "%s", text);
    longjmp(errors->jump, 1);
}

// Level -1 is a warning about corrupt data. Two of these warnings concern markers that do not affect the pixels.
static void warn(j_common_ptr jpeg, int level) {
    if (level >= 0) return;
    int code = jpeg->err->msg_code;
    if (code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR) return;
    fail(jpeg);
}

static void stay_silent(j_common_ptr jpeg) { (void)jpeg; }

static void limit_scans(j_common_ptr jpeg) {
    if (jpeg->is_decompressor && ((j_decompress_ptr)jpeg)->input_scan_number > max_scans) {
        error_manager *errors = (error_manager *)jpeg->err;
        snprintf(errors->message, CIMG_MESSAGE_LENGTH, "more than %d scans", max_scans);
        longjmp(errors->jump, 1);
    }
}

// R = (1 - C)(1 - K), and likewise for G with M and B with Y. Adobe's programs store 255 - ink.
static void cmyk_to_rgb(const uint8_t *row, uint8_t *out, size_t width, int inverted) {
    uint8_t flip = inverted ? 0 : 255;
    for (size_t x = 0; x < width; x++) {
        uint32_t light = row[4 * x + 3] ^ flip;
        for (int c = 0; c < 3; c++) out[3 * x + c] = (uint8_t)(((row[4 * x + c] ^ flip) * light + 127) / 255);
    }
}

cimg_status cimg_decode_jpeg(const uint8_t *bytes, size_t count, uint64_t max_pixels, cimg_picture *out) {
    memset(out, 0, sizeof *out);
    struct jpeg_decompress_struct jpeg;
    struct jpeg_progress_mgr progress = {0};
    error_manager errors;
    // Modified between setjmp and a possible longjmp, so they must be volatile.
    uint8_t *volatile pixels = NULL;
    uint8_t *volatile ink = NULL;

    memset(&jpeg, 0, sizeof jpeg);  // so that a jump before jpeg_create_decompress has nothing to destroy
    jpeg.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = fail;
    errors.base.emit_message = warn;
    errors.base.output_message = stay_silent;
    errors.message = out->message;
    if (setjmp(errors.jump)) {
        jpeg_destroy_decompress(&jpeg);
        free(pixels);
        free(ink);
        return CIMG_CORRUPT;
    }
    jpeg_create_decompress(&jpeg);
    progress.progress_monitor = limit_scans;
    jpeg.progress = &progress;
    jpeg_mem_src(&jpeg, bytes, count);
    jpeg_read_header(&jpeg, TRUE);
    size_t width = jpeg.image_width, height = jpeg.image_height;
    out->width = (uint32_t)width;
    out->height = (uint32_t)height;
    if ((uint64_t)width * height > max_pixels) {
        jpeg_destroy_decompress(&jpeg);
        strcpy(out->message, "too many pixels");
        return CIMG_TOO_LARGE;
    }

    int has_ink = jpeg.num_components == 4;
    jpeg.out_color_space = has_ink ? JCS_CMYK : JCS_RGB;
    pixels = malloc(3 * width * height);
    if (has_ink) ink = malloc(4 * width);
    if (!pixels || (has_ink && !ink)) {
        jpeg_destroy_decompress(&jpeg);
        free(pixels);
        free(ink);
        strcpy(out->message, "out of memory");
        return CIMG_OUT_OF_MEMORY;
    }
    jpeg_start_decompress(&jpeg);
    while (jpeg.output_scanline < jpeg.output_height) {
        uint8_t *target = pixels + 3 * width * jpeg.output_scanline;
        JSAMPROW row = has_ink ? ink : target;
        jpeg_read_scanlines(&jpeg, &row, 1);
        if (has_ink) cmyk_to_rgb(ink, target, width, jpeg.saw_Adobe_marker);
    }
    jpeg_finish_decompress(&jpeg);  // reads up to the end marker, so that a truncated file is detected
    jpeg_destroy_decompress(&jpeg);
    free(ink);
    out->pixels = pixels;
    return CIMG_OK;
}
