#!/usr/bin/env python3
"""The steps of a run's records, read with Python's standard library only: read_records.py RUN metrics|tensorboard|wandb

One line for each logged step and one for each picture, in the order of the file: "loss STEP" or "samples STEP". The
file must be whole: what no reader would take ends this with an error.
"""

import glob
import json
import struct
import sys
import zlib


def fields(message):
    """(number, value) of a protocol buffer; messages and strings as bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            assert key & 7 == 2, f"wire type {key & 7}"
            size = varint()
        assert at + size <= len(message)
        yield key >> 3, message[at:at + size]
        at += size


def only(pattern):
    files = glob.glob(pattern)
    assert len(files) == 1, f"{pattern}: {len(files)} files, expected 1"
    return files[0]


def metrics(run):
    for line in open(f"{run}/metrics.jsonl"):
        record = json.loads(line)
        if record["kind"] == "step":
            yield "loss", record["step"]


def tensorboard(run):
    data = open(only(f"{run}/tensorboard/events.out.tfevents.*"), "rb").read()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert at + 16 + length <= len(data), "the last event is torn"
        event = list(fields(data[at + 12:at + 12 + length]))
        at += 16 + length
        step = dict(event).get(2, 0)
        for number, summary in event:
            if number != 5:
                continue
            for _, value in fields(summary):
                tag = dict(fields(value))[1].decode()
                if tag in ("train/loss", "samples"):
                    yield tag.removeprefix("train/"), step


def wandb_records(run):
    """The records of wandb's log, as bytes of protocol buffers."""
    data = open(only(f"{run}/wandb/offline-run-*/run-*.wandb"), "rb").read()
    assert data[:7] == b":W&B\xe1\xbe\0", "no header of a wandb log"
    at, record = 7, b""
    while at < len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + 7:at + 7 + length]
        assert zlib.crc32(bytes([kind]) + piece) == checksum, "the log is torn or damaged"
        at += 7 + length
        record += piece
        if kind in (1, 4):
            yield record
            record = b""
    assert not record, "the last record is torn"


def wandb(run):
    for record in wandb_records(run):
        for number, row in fields(record):
            if number != 2:
                continue
            items = {}
            for number, item in fields(row):
                if number == 1:
                    item = dict(fields(item))
                    items[item[1].decode()] = json.loads(item[16])
            for key in ("train/loss", "samples"):
                if key in items:
                    yield key.removeprefix("train/"), items["_step"]


if __name__ == "__main__":
    for what, step in {"metrics": metrics, "tensorboard": tensorboard, "wandb": wandb}[sys.argv[2]](sys.argv[1]):
        print(what, step)
