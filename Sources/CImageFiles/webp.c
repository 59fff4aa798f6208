#include "alpha.h"
#include "cimagefiles.h"

#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>

static cimg_status fail(cimg_picture *out, VP8StatusCode code) {
    const char *text = "libwebp cannot decode it";
    switch (code) {
    case VP8_STATUS_OUT_OF_MEMORY: strcpy(out->message, "out of memory"); return CIMG_OUT_OF_MEMORY;
    case VP8_STATUS_BITSTREAM_ERROR: text = "invalid WebP data"; break;
    case VP8_STATUS_UNSUPPORTED_FEATURE: text = "a kind of WebP that libwebp does not support"; break;
    // With the whole file in memory, all of these mean that it ends too early.
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA: text = "the WebP file ends too early"; break;
    default: break;
    }
    strcpy(out->message, text);
    return CIMG_CORRUPT;
}

cimg_status cimg_decode_webp(const uint8_t *bytes, size_t count, uint64_t max_pixels, cimg_picture *out) {
    memset(out, 0, sizeof *out);
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) return fail(out, VP8_STATUS_INVALID_PARAM);
    VP8StatusCode code = WebPGetFeatures(bytes, count, &config.input);
    if (code != VP8_STATUS_OK) return fail(out, code);
    if (config.input.has_animation) return fail(out, VP8_STATUS_UNSUPPORTED_FEATURE);
    size_t width = (size_t)config.input.width, height = (size_t)config.input.height;
    out->width = (uint32_t)width;
    out->height = (uint32_t)height;
    if ((uint64_t)width * height > max_pixels) {
        strcpy(out->message, "too many pixels");
        return CIMG_TOO_LARGE;
    }

    size_t channels = config.input.has_alpha ? 4 : 3;
    uint8_t *pixels = malloc(channels * width * height);
    if (!pixels) return fail(out, VP8_STATUS_OUT_OF_MEMORY);
    config.output.colorspace = config.input.has_alpha ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = pixels;
    config.output.u.RGBA.stride = (int)(channels * width);
    config.output.u.RGBA.size = channels * width * height;
    code = WebPDecode(bytes, count, &config);
    WebPFreeDecBuffer(&config.output);
    if (code != VP8_STATUS_OK) {
        free(pixels);
        return fail(out, code);
    }
    if (channels == 4) composite_on_white(pixels, width * height);
    out->pixels = pixels;
    return CIMG_OK;
}
