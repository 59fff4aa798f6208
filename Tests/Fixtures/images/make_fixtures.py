"""Generates the image fixtures with Pillow, whose results are the golden values: python make_fixtures.py

Every image is a smooth pattern with a hard edge, 24 x 16. NAME.rgb contains the raw RGB bytes that
decoding NAME must give (for JPEG within a level or two, since libjpeg versions differ in rounding).
"""

import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
W, H = 24, 16
y, x = np.mgrid[0:H, 0:W]
RGB = np.stack([x * 10, y * 15, 255 - x * 5 - y * 6], -1).astype(np.uint8)
RGB[4:9, 6:15] = (250, 30, 40)


def keep(name, data, rgb):
    (HERE / name).write_bytes(data)
    if rgb is not None:
        (HERE / f"{name}.rgb").write_bytes(np.asarray(rgb, np.uint8).tobytes())


def encoded(image, **options):
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


def reopened(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def jpegs():
    rgb = Image.fromarray(RGB)
    data = encoded(rgb, format="JPEG", quality=90)
    keep("rgb.jpg", data, reopened(data))
    keep("truncated.jpg", data[: len(data) * 3 // 4], None)
    data = encoded(rgb, format="JPEG", quality=90, progressive=True, subsampling=0)
    keep("progressive.jpg", data, reopened(data))
    data = encoded(rgb.convert("L"), format="JPEG", quality=90)
    keep("gray.jpg", data, reopened(data))
    # Pillow writes CMYK with Adobe's marker and inverted ink, and reads it back the same way.
    cmyk = Image.fromarray(np.concatenate([255 - RGB, (x * 4).astype(np.uint8)[..., None]], -1), "CMYK")
    data = encoded(cmyk, format="JPEG", quality=95)
    keep("cmyk.jpg", data, reopened(data))
    # The same inks as YCCK (transform 2 in Adobe's marker): R, G, B = 255 - C, M, Y stored as Y, Cb, Cr.
    # Without an Adobe marker, ink is not inverted: the marker is removed, so the inks read are 255 - stored.
    at = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    plain = data[:at] + data[at + 2 + length :]
    ink = np.asarray(Image.open(io.BytesIO(data))).astype(int)  # Pillow has inverted them already
    stored = 255 - ink
    keep("cmyk_plain.jpg", plain, np.rint((255 - stored[..., :3]) * (255 - stored[..., 3:]) / 255))
    ycck = bytearray(data)
    ycck[at + 4 + 11] = 2
    inks = 255 - np.asarray(Image.open(io.BytesIO(data))).astype(float)  # as stored: Y, Cb, Cr, K
    Y, Cb, Cr, K = (inks[..., i] for i in range(4))
    back = np.stack([Y + 1.402 * (Cr - 128), Y - 0.344136 * (Cb - 128) - 0.714136 * (Cr - 128), Y + 1.772 * (Cb - 128)], -1)
    stored = 255 - np.clip(np.rint(back), 0, 255)  # libjpeg: C = 255 - R
    keep("ycck.jpg", bytes(ycck), np.rint(stored * K[..., None] / 255))
    for orientation in (3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(rgb, format="JPEG", quality=90, exif=exif)
        turned = Image.open(io.BytesIO(data)).transpose({3: Image.ROTATE_180, 6: Image.ROTATE_270}[orientation])
        keep(f"exif{orientation}.jpg", data, np.asarray(turned))


def pngs():
    rgb = Image.fromarray(RGB)
    keep("rgb.png", encoded(rgb, format="PNG"), RGB)
    gray = np.asarray(rgb.convert("L"))
    keep("gray.png", encoded(Image.fromarray(gray), format="PNG"), np.stack([gray] * 3, -1))
    bits = gray > 128
    keep("bits.png", encoded(Image.fromarray(bits), format="PNG"), np.stack([bits * 255] * 3, -1))
    palette = rgb.quantize(16)
    keep("palette.png", encoded(palette, format="PNG"), np.asarray(palette.convert("RGB")))

    alpha = (x * 11).astype(np.uint8)
    rgba = np.concatenate([RGB, alpha[..., None]], -1)
    a = alpha[..., None].astype(float)
    keep("rgba.png", encoded(Image.fromarray(rgba), format="PNG"), np.floor((RGB * a + 255 * (255 - a)) / 255 + 0.5))

    # Pillow cannot write 16-bit RGB, nor interlaced files.
    deep = (RGB.astype(np.uint32) * 257 + np.where(RGB > 100, -100, 100)).clip(0, 65535).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    data = png + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    keep("rgb16.png", data, np.rint(deep.astype(float) / 257))
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(b"\0" + row.tobytes() for x0, y0, dx, dy in passes for row in RGB[y0::dy, x0::dx])
    header = struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 1)
    data = png + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    keep("interlaced.png", data, RGB)

    keep("onepixel.png", encoded(Image.new("RGB", (1, 1), (9, 8, 7)), format="PNG"), None)
    # 60000 x 60000 pixels in a hundred bytes.
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    keep("bomb.png", png + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""), None)


def webps():
    rgb = Image.fromarray(RGB)
    rgba = np.concatenate([RGB, (x * 11).astype(np.uint8)[..., None]], -1)

    def on_white(pixels):
        a = pixels[..., 3:].astype(float)
        return np.floor((pixels[..., :3] * a + 255 * (255 - a)) / 255 + 0.5)

    # Alpha as in rgba.png; `exact` keeps the colors of invisible pixels.
    data = encoded(rgb, format="WEBP", lossless=True)
    keep("lossless.webp", data, RGB)
    keep("lossless_alpha.webp", encoded(Image.fromarray(rgba), format="WEBP", lossless=True, exact=True), on_white(rgba))
    # 16383 x 16383 pixels, the largest size that the format has, in the header of an otherwise small file.
    sides = struct.pack("<I", 0x3FFE | 0x3FFE << 14)
    keep("bomb.webp", data[:21] + sides + data[25:], None)
    data = encoded(rgb, format="WEBP", quality=90)
    keep("lossy.webp", data, reopened(data))
    data = encoded(Image.fromarray(rgba), format="WEBP", quality=90, exact=True)
    keep("lossy_alpha.webp", data, on_white(np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(rgb, format="WEBP", quality=90, exif=exif)
    keep("exif6.webp", data, np.asarray(Image.open(io.BytesIO(data)).transpose(Image.ROTATE_270)))
    frames = [rgb, rgb.transpose(Image.ROTATE_180)]
    keep("animated.webp", encoded(frames[0], format="WEBP", save_all=True, append_images=frames[1:], duration=100), None)


def lumas():
    """The luma of random colors as Pillow's mode "L": 3 bytes R, G, B, then 1 byte L, for each."""
    colors = np.random.default_rng(5).integers(0, 256, (1, 256, 3), np.uint8)
    colors[0, :4] = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]
    gray = np.asarray(Image.fromarray(colors).convert("L"))
    (HERE / "luma.bin").write_bytes(np.concatenate([colors[0], gray[0][:, None]], -1).tobytes())


def coverage(n_in, n_out):
    """The weight of each input pixel in each output pixel; rows sum to one."""
    scale = n_in / n_out
    edges = np.arange(n_out)[:, None] * scale
    low, high = np.maximum(edges, np.arange(n_in)), np.minimum(edges + scale, np.arange(n_in) + 1)
    return np.maximum(high - low, 0) / scale


def resizes():
    rng = np.random.default_rng(5)
    yy, xx = np.mgrid[0:40, 0:60]
    source = 120 + 80 * np.sin(xx / 5)[..., None] * np.cos(yy[..., None] / np.array([3, 5, 7]))
    source[10:24, 20:44] = (255, 0, 128)
    source = (source + rng.normal(0, 12, source.shape)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(source)
    (HERE / "resize_source_60x40.rgb").write_bytes(source.tobytes())
    for w, h in [(30, 20), (17, 13), (90, 55), (8, 40)]:
        out = image.resize((w, h), Image.LANCZOS)
        (HERE / f"lanczos_{w}x{h}.rgb").write_bytes(out.tobytes())
    for w, h in [(30, 20), (15, 10)]:
        # At integer ratios, Pillow's BOX is the exact average.
        (HERE / f"area_{w}x{h}.rgb").write_bytes(image.resize((w, h), Image.BOX).tobytes())
    for w, h in [(17, 13), (23, 37)]:
        out = np.einsum("ij,jkc,lk->ilc", coverage(40, h), source.astype(float), coverage(60, w))
        (HERE / f"area_{w}x{h}.rgb").write_bytes(np.rint(out).astype(np.uint8).tobytes())


jpegs()
pngs()
webps()
lumas()
resizes()
(HERE / "notanimage.jpg").write_bytes(b"GIF89a is not supported here")
