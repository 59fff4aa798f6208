#!/usr/bin/env python3
"""Writes pickles of every protocol, with NumPy 2.4 and Python 3; python2_batch is one of CIFAR-10 as Python 2 wrote it.

The name of a file is CONTENTS_PROTOCOL.pkl.
"""
import collections
import pathlib
import pickle
import struct

import numpy

folder = pathlib.Path(__file__).parent

endless = [1]
endless.append(endless)
shared = ["shared"]
values = {
    "none": None,
    "booleans": [True, False],
    "integers": [0, 255, 256, 65535, -1, -(2**31), 2**31, -(2**63), 2**63 - 1],
    "long": 2**70,
    "floats": [0.0, 1.5, -1e300, float("inf")],
    "texts": ["", "plain", "ünï\n\\u0041 '\"", "\U0001f600"],
    "bytes": [b"", b"raw\x00\xff\n"],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "set": {7},
    "shared": [shared, shared],
    "endless": endless,
}
pixels = numpy.arange(24, dtype=numpy.uint8).reshape(2, 12) * 11
arrays = {
    "data": pixels,
    "columns": numpy.asfortranarray(numpy.arange(6, dtype=numpy.float32).reshape(2, 3)),
    "big": numpy.array([1, 256], dtype=">i2"),
    "labels": [3, 9],
    "filenames": ["a.png", "b.png"],
}
for protocol in range(6):
    (folder / f"values_{protocol}.pkl").write_bytes(pickle.dumps(values, protocol))
    (folder / f"arrays_{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol))


def text(value):
    return b"U" + bytes([len(value)]) + value


# cPickle of Python 2.7 with NumPy 1, protocol 2.
dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\0tb"
array = (
    b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\0\x85" + text(b"b") + b"\x87R"
    + b"(K\x01K\x02K\x0c\x86" + dtype + b"\x89T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
)
batch = (
    b"\x80\x02}q\x00(" + text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + b"]q\x03(K\x03K\x09e"
    + text(b"data") + array + text(b"filenames") + b"](" + text(b"a.png") + text(b"b.png") + b"eu."
)
(folder / "python2_batch_2.pkl").write_bytes(batch)
pickle.loads(batch, encoding="bytes")
