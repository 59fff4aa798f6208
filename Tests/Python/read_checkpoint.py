"""A reader of checkpoints, written from docs/checkpoint-format.md with only numpy and safetensors.

    python read_checkpoint.py runs/NAME/checkpoints/step-00015000

reads everything, compares every checksum, and prints a line for each folder.
"""

import json
import pathlib
import re
import struct
import sys

import numpy
import safetensors.numpy

POLYNOMIAL = 0x82F63B78  # bits reversed


def _table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        yield byte


TABLE = tuple(_table())


def crc32c(data, crc=0):
    """Continues `crc`, the checksum of the preceding bytes, over more bytes."""
    crc ^= 0xFFFFFFFF
    for byte in bytes(data):
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _times(a, b):
    """Product of two polynomials over GF(2) modulo the CRC's; bit 31 is x^0."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return product


def joined(first, second, length):
    """The checksum of two concatenated pieces, the second of `length` bytes."""
    shift, power = 1 << 31, 1 << 23  # x^0, x^8
    while length:
        if length & 1:
            shift = _times(shift, power)
        power = _times(power, power)
        length >>= 1
    return _times(shift, first) ^ second


class Damaged(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Damaged(what)


def check_sum(found, expected, what):
    check(f"{found:08x}" == expected, f"{what}: checksum {found:08x}, expected {expected}")


def read_manifest(path):
    text = (path / "manifest.json").read_bytes()
    body, trailer = text[:-36], text[-36:]
    expected = f',\n  "manifest_crc32c": "{crc32c(body):08x}"\n}}\n'
    check(trailer == expected.encode(), f"{path}: the manifest does not agree with its own checksum")
    manifest = json.loads(text)
    check(manifest["kind"] == "disttrain checkpoint", f"{path}: no checkpoint")
    check(manifest["format_version"] == 2, f"{path}: format version {manifest['format_version']}, expected 2")
    named = re.fullmatch(r"step-(\d{8,})", path.name)
    check(not named or int(named[1]) == manifest["step"], f"{path}: of step {manifest['step']}")
    return manifest


def read_weights(path, file, shapes):
    """The tensors of a weight file by name, after comparing all checksums."""
    data = path.read_bytes()
    counts = {row["name"]: int(numpy.prod(shapes[row["name"]], dtype=numpy.int64)) for row in file["tensors"]}
    place = len(data) - 4 * sum(counts.values())
    check(struct.unpack("<Q", data[:8])[0] == place - 8, f"{path}: the header does not end where the tensors begin")
    whole = crc32c(data[:place])
    # The header as parsed by the library must match the manifest.
    library = safetensors.numpy.load(data)
    check(set(library) == set(counts), f"{path}: the header and the manifest name different tensors")
    tensors = {}
    for row in file["tensors"]:
        name, size = row["name"], 4 * counts[row["name"]]
        piece = data[place:place + size]
        place += size
        found = crc32c(piece)
        check_sum(found, row["crc32c"], f"{path}: tensor {name}")
        whole = joined(whole, found, size)
        tensors[name] = numpy.frombuffer(piece, "<f4").reshape(shapes[name])
        check(library[name].dtype == numpy.float32 and library[name].shape == tensors[name].shape, f"{path}: {name}")
        check(library[name].tobytes() == piece, f"{path}: {name} lies elsewhere by the header")
    check_sum(whole, file["crc32c"], f"{path}")
    return tensors


def read(path):
    """The manifest, and {folder: {name: array}}; raises `Damaged` if anything does not match."""
    path = pathlib.Path(path)
    manifest = read_manifest(path)
    shapes = {row["name"]: row["shape"] for row in manifest["parameters"]}
    check(len(shapes) == len(manifest["parameters"]), f"{path}: a parameter is there twice")
    folders = {folder: {} for folder in manifest["folders"]}
    for file in manifest["files"]:
        check(re.fullmatch(r"[^/\0]+/[^/\0]+", file["path"]), f"{path}: {file['path']} is no FOLDER/NAME")
        folder, name = file["path"].split("/")
        check(folder in folders and name not in (".", ".."), f"{path}: {file['path']} is in none of its folders")
        place = path / file["path"]
        check(place.is_file() and not place.is_symlink(), f"{place}: not there")
        check(place.stat().st_size == file["bytes"], f"{place}: {place.stat().st_size} bytes, expected {file['bytes']}")
        if name.endswith(".safetensors"):
            tensors = read_weights(place, file, shapes)
            check(not tensors.keys() & folders[folder].keys(), f"{place}: a tensor is in two files")
            folders[folder].update(tensors)
        else:
            check_sum(crc32c(place.read_bytes()), file["crc32c"], f"{place}")
    for folder, tensors in folders.items():
        check(tensors.keys() == shapes.keys(), f"{path / folder}: {len(tensors)} of {len(shapes)} tensors")
    return manifest, folders


if __name__ == "__main__":
    try:
        manifest, folders = read(sys.argv[1])
    except Damaged as error:
        sys.exit(f"Error: {error}")
    print(f"{manifest['name']}, step {manifest['step']}")
    for folder, tensors in folders.items():
        norm = sum(float((tensor.astype(numpy.float64) ** 2).sum()) for tensor in tensors.values()) ** 0.5
        print(f"  {folder}: {len(tensors)} tensors, norm {norm:.7g}")
