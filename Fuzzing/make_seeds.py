#!/usr/bin/env python3
"""Writes small archives, arrays, pickles and TIFF headers to start from: make_seeds.py FOLDER."""
import gzip
import io
import pathlib
import struct
import sys
import tarfile
import zipfile

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
images = pathlib.Path(__file__).parent.parent / "Tests/Fixtures/images"
picture = (images / "gray.png").read_bytes()


def archive(name, tar_format, members):
    with tarfile.open(folder / name, "w", format=tar_format) as tar:
        for member, content in members:
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    # Without the zeros that fill a record of 10 KiB, but for the two blocks of the end.
    content = (folder / name).read_bytes().rstrip(b"\0")
    (folder / name).write_bytes(content + bytes(-len(content) % 512 + 1024))


plain = [("a/1.png", picture), ("b.png", b"no image"), ("notes.txt", b"text")]
deep = [("x" * 90 + "/" + "y" * 90 + ".png", picture)]
archive("ustar.tar", tarfile.USTAR_FORMAT, plain)
archive("gnu.tar", tarfile.GNU_FORMAT, plain[:1] + deep)
archive("pax.tar", tarfile.PAX_FORMAT, [("\u00e9" * 60 + ".png", picture)] + deep)
(folder / "small.tgz").write_bytes(gzip.compress((folder / "ustar.tar").read_bytes()))
labelled = [("a/1.png", picture), ("b.png", b"no image"), ("dataset.json", b'{"labels": [["a/1.png", 3], ["b.png", 4]]}')]
sidecars = [("1.png", picture), ("1.cls", b"7"), ("1.txt", b"text")]
archive("sidecars.tar", tarfile.USTAR_FORMAT, sidecars)
for name, method in [("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)]:
    for kind, members in [("", labelled), ("_sidecars", sidecars)]:
        with zipfile.ZipFile(folder / f"{name}{kind}.zip", "w", method) as file:
            for member, content in members:
                file.writestr(member, content)
pixels = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 8, 8, 3), }\n"
(folder / "images.npy.bin").write_bytes(
    b"\x93NUMPY\1\0" + struct.pack("<H", len(pixels)) + pixels + bytes(range(192)) * 2
)


def array(dtype, shape, values, version=(1, 0), order=False):
    text = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    code = {"<f8": "d", "<f4": "f"}[dtype]
    return b"\x93NUMPY" + bytes(version) + length + text + struct.pack(f"<{len(values)}{code}", *values)


mu, sigma = array("<f8", "(2,)", [1, 2]), array("<f8", "(2, 2)", [1, 0, 0, 1])
(folder / "mu8.npy").write_bytes(array("<f8", "(1,)", [1]))
(folder / "mu4.npy").write_bytes(array("<f4", "(1,)", [1], version=(2, 0)))
(folder / "empty.npy").write_bytes(array("<f8", "()", [1]))
for name, method in [("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)]:
    with zipfile.ZipFile(folder / f"{name}.npz", "w", method) as file:
        file.writestr("mu.npy", mu)
        file.writestr("sigma.npy", sigma)

for mark, order in [(b"II", "<"), (b"MM", ">")]:
    entries = [(0x010F, 2, 4, 0), (0x0112, 3, 1, 6)]
    body = struct.pack(order + "HIH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        body += struct.pack(order + "HHI", tag, kind, count) + packed
    (folder / f"{mark.decode()}.tiff").write_bytes(mark + body + b"\0\0\0\0")

# The pickles inside of PyTorch's files.
for path in sorted((images.parent / "torch").glob("*")):
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            name = next(name for name in file.namelist() if name.endswith("/data.pkl"))
            (folder / f"{path.stem}.pkl").write_bytes(file.read(name))
