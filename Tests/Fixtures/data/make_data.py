#!/usr/bin/env python3
"""Writes small examples of all data that `prepare` reads: make_data.py FOLDER.

Image i has 16x16 pixels (CIFAR's 32x32) of (37 i + 5 y + 3 x + 40 c) mod 256 in row y, column x and channel c.
Uses Python's standard library alone, so that the tests need nothing else.
"""
import bz2
import gzip
import io
import json
import lzma
import pathlib
import pickle
import struct
import sys
import tarfile
import types
import zipfile
import zlib

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)


def write(name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# --- Images ---


def pixel(i, y, x, c):
    return (37 * i + 5 * y + 3 * x + 40 * c) % 256


def interleaved(i, side=16):
    return bytes(pixel(i, y, x, c) for y in range(side) for x in range(side) for c in range(3))


def planar(i, side=16, channels=3):
    return bytes(pixel(i, y, x, c) for c in range(channels) for y in range(side) for x in range(side))


def png(i, side=16):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = interleaved(i, side)
    lines = b"".join(b"\0" + rows[3 * side * y : 3 * side * (y + 1)] for y in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


# Six images in two class folders: cats 0 to 2, dogs 3 to 5.
classes = [(f"{'cats' if i < 3 else 'dogs'}/{i}.png", png(i)) for i in range(6)]
for name, content in classes:
    write(f"faces/{name}", content)


# --- Zip archives ---


def zip_file(name, members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for member, content in members:
            archive.writestr(member, content)
    write(name, buffer.getvalue())
    return buffer.getvalue()


zip_file("deflated.zip", classes)
stored = zip_file("stored.zip", classes, zipfile.ZIP_STORED)
zipfile.ZIP64_LIMIT, limit = 100, zipfile.ZIP64_LIMIT
zip_file("zip64.zip", classes)
zipfile.ZIP64_LIMIT = limit

edm = [(f"00000/img{i:08d}.png", png(i)) for i in range(6)]
rows = [[name, 10 - i // 2] for i, (name, _) in enumerate(edm)]
zip_file("edm.zip", edm + [("dataset.json", json.dumps({"labels": rows}))], zipfile.ZIP_STORED)
zip_file("edm_null.zip", edm + [("dataset.json", json.dumps({"labels": None}))], zipfile.ZIP_STORED)
zip_file("edm_partial.zip", edm + [("dataset.json", json.dumps({"labels": rows[:4]}))], zipfile.ZIP_STORED)
zip_file(
    "masks.zip",
    [(f"CelebAMask-HQ/CelebA-HQ-img/{i}.png", png(i)) for i in range(6)]
    + [(f"CelebAMask-HQ/CelebAMask-HQ-mask-anno/0/0000{i}_hair.png", png(9)) for i in range(6)]
    + [("CelebAMask-HQ/README.txt", b"text"), ("__MACOSX/._x.png", b"junk")],
)
zip_file("dots.zip", classes + [("../../etc/a.png", png(0))])


def patched(content, name, at, replacement):
    """The archive with bytes replaced in the directory's entry of a member."""
    entry = content.rindex(name.encode()) - 46
    return content[: entry + at] + replacement + content[entry + at + len(replacement) :]


write("encrypted.zip", patched(stored, "cats/1.png", 8, b"\1\0"))
write("method.zip", patched(stored, "cats/1.png", 10, b"\x0e\0"))
write("truncated.zip", stored[:-30])
deflated = (folder / "deflated.zip").read_bytes()
write("bomb.zip", patched(deflated, "cats/1.png", 24, struct.pack("<I", 3 << 30)))
write("longer.zip", patched(deflated, "cats/1.png", 24, struct.pack("<I", 100)))
# Two members with the same bytes.
first = stored.index(b"PK\1\2")
write("overlap.zip", patched(stored, "cats/1.png", 42, struct.pack("<I", 0)))
place = stored.index(png(1)) + 60
write("damaged.zip", stored[:place] + bytes([stored[place] ^ 4]) + stored[place + 1 :])

# --- Tar archives ---


def tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


plain = tar(classes)
write("set.tar", plain)
write("set.tar.gz", gzip.compress(plain))
write("set.tar.xz", lzma.compress(plain))
write("set.tar.bz2", bz2.compress(plain))

# WebDataset: the same keys in all shards, with the class, a description and a caption.
for shard in range(3):
    members = []
    for i in range(2 * shard, 2 * shard + 2):
        key = f"{i % 2:06d}"
        members += [
            (f"{key}.png", png(i)),
            (f"{key}.cls", str(i // 2 * 5).encode()),
            (f"{key}.json", json.dumps({"width": 16}).encode()),
            (f"{key}.txt", b"a caption"),
        ]
    content = tar(members)
    write(f"shards/{shard:05d}.tar", content)
    write(f"shards/{shard:05d}_stats.json", b"{}")
    write(f"packed/{shard:05d}.tar.gz", gzip.compress(content))
write("unlabelled.tar", tar([("0.png", png(0)), ("0.cls", b"1"), ("1.png", png(1)), ("2.png", png(2))]))
write("both.tar", tar([("0.png", png(0)), ("0.cls", b"1"), ("dataset.json", b'{"labels": [["0.png", 1]]}')]))

# --- NumPy arrays ---


def array(dtype, shape, content):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    text += " " * (63 - (10 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + content


def labels(dtype, values, shape=None):
    code = {"<i8": "q", "|u1": "B", "<i4": "i"}[dtype]
    return array(dtype, shape or [len(values)], struct.pack(f"<{len(values)}{code}", *values))


images = array("|u1", [6, 16, 16, 3], b"".join(interleaved(i) for i in range(6)))
numbers = labels("<i8", [0, 0, 2, 2, 11, 11])
zip_file("samples.npz", [("arr_0.npy", images)], zipfile.ZIP_STORED)
zip_file("labelled.npz", [("arr_0.npy", images), ("arr_1.npy", numbers)], zipfile.ZIP_STORED)
zip_file("compressed.npz", [("arr_0.npy", images), ("arr_1.npy", numbers)])
write("images.npy", images)
gray = array("|u1", [6, 16, 16], b"".join(planar(i, channels=1) for i in range(6)))
write("gray.npy", gray)
zip_file(
    "medical.npz",
    [("train_images.npy", images), ("train_labels.npy", labels("|u1", [0, 0, 2, 2, 11, 11], [6, 1]))]
    + [("test_images.npy", gray), ("test_labels.npy", labels("|u1", [1] * 6, [6, 1]))],
)
zip_file("several.npz", [("a.npy", images), ("b.npy", gray)])
for i in range(6):
    write(f"hq/imgHQ{i:05d}.npy", array("|u1", [1, 3, 16, 16], planar(i)))
write("floats.npy", array("<f4", [6, 16, 16, 3], bytes(4 * 6 * 768)))
write("flat.npy", array("|u1", [6, 768], bytes(6 * 768)))
write("short.npy", images[:-1])
zip_file("few_labels.npz", [("arr_0.npy", images), ("arr_1.npy", labels("<i4", [1, 2]))])

# --- CIFAR ---

cifar = [planar(i, 32) for i in range(6)]
write("cifar-10-batches-bin/data_batch_1.bin", b"".join(bytes([i]) + cifar[i] for i in range(3)))
write("cifar-10-batches-bin/data_batch_2.bin", b"".join(bytes([i]) + cifar[i] for i in range(3, 6)))
write("cifar-10-batches-bin/batches.meta.txt", b"\n".join(b"class%d" % i for i in range(10)) + b"\n")
write("cifar-100-binary/train.bin", b"".join(bytes([i // 2, 90 + i]) + cifar[i] for i in range(6)))
write("cifar-100-binary/fine_label_names.txt", b"\n".join(b"fine%02d" % i for i in range(100)) + b"\n")

# Arrays as NumPy pickles them, without NumPy.
for name in ["numpy", "numpy.core", "numpy.core.multiarray"]:
    sys.modules[name] = types.ModuleType(name)


def _reconstruct(*arguments):
    pass


class ndarray:
    def __init__(self, shape, content):
        self.shape, self.content = shape, content

    def __reduce__(self):
        return _reconstruct, (ndarray, (0,), b"b"), (1, self.shape, dtype(), False, self.content)


class dtype:
    def __reduce__(self):
        return dtype, (b"u1", 0, 1), (3, b"|", None, None, None, -1, -1, 0)


for thing, module in [(_reconstruct, "numpy.core.multiarray"), (ndarray, "numpy"), (dtype, "numpy")]:
    thing.__module__ = module
    setattr(sys.modules[module], thing.__name__, thing)


class Python2(pickle._Pickler):
    """Writes bytes as strings, as Python 2 does."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, content):
        self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(content)

    dispatch[bytes] = save_string


def pickled(value, python2=True):
    if not python2:
        return pickle.dumps(value, protocol=2)
    buffer = io.BytesIO()
    Python2(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def batch(items, key, python2=True):
    content = ndarray((len(items), 3072), b"".join(cifar[i] for i in items))
    return pickled(
        {b"batch_label": b"a batch", key: [90 + i if b"fine" in key else i for i in items], b"data": content}, python2
    )


python10 = [("data_batch_1", batch([0, 1, 2], b"labels")), ("data_batch_2", batch([3, 4, 5], b"labels", False))]
python10 += [("test_batch", batch([5], b"labels")), ("readme.html", b"<p>")]
python10 += [("batches.meta", pickled({b"num_vis": 3072, b"label_names": [b"class%d" % i for i in range(10)]}))]
python100 = [("train", batch(range(6), b"fine_labels")), ("test", batch([5], b"fine_labels")), ("file.txt~", b"")]
python100 += [("meta", pickled({b"fine_label_names": [b"fine%02d" % i for i in range(100)]}))]
for stem, members in [("cifar-10-batches-py", python10), ("cifar-100-python", python100)]:
    for name, content in members:
        write(f"{stem}/{name}", content)
write("cifar-10-python.tar.gz", gzip.compress(tar([(f"cifar-10-batches-py/{n}", c) for n, c in python10])))
write("cifar-100-python.tar.gz", gzip.compress(tar([(f"cifar-100-python/{n}", c) for n, c in python100])))
binary = [(p.name, p.read_bytes()) for p in sorted((folder / "cifar-10-batches-bin").iterdir())]
write("cifar-10-binary.tar.gz", gzip.compress(tar([(f"cifar-10-batches-bin/{n}", c) for n, c in binary])))
write("hostile/cifar-10-batches-py/data_batch_1", b"cposix\nsystem\n(S'true'\ntR.")
write("hostile/cifar-10-batches-py/batches.meta", pickled({b"label_names": []}))

# --- Tables of labels ---

table = "".join(f"{name},{'cat' if i < 3 else 'dog'}\n" for i, (name, _) in enumerate(classes))
write("labels.csv", table.encode())
write("header.csv", ("\ufefflabel;filename\r\n" + "".join(f"{i};\"{i}.png\"\r\n" for i in range(6))).encode())
write("unknown.csv", (table + "cats/77.png,cat\n").encode())
write("missing.csv", table.encode().split(b"\n", 2)[2])
write("twice.csv", (table + "cats/0.png,dog\n").encode())
