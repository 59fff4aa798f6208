"""Reads a run folder with Python's standard library only, as an implementation independent of the program's."""

import functools
import hashlib
import json
import os
import re
import struct

STEP_NAME = re.compile(r"^step-(\d{8,})$")
TRAILER = re.compile(rb',\n  "manifest_crc32c": "([0-9a-f]{8})"\n}\n$')


class Damaged(Exception):
    """A damaged or incomplete checkpoint; the text describes the problem."""


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


@functools.lru_cache(maxsize=4096)
def crc32c(data):
    """CRC-32C of bytes as eight hexadecimal digits. The loop is slow, but the results are reused for equal bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return f"{crc ^ 0xFFFFFFFF:08x}"


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write_manifest(path, manifest):
    """Writes a manifest with a valid checksum."""
    text = json.dumps({key: manifest[key] for key in manifest if key != "manifest_crc32c"}, indent=2).encode()[:-2]
    with open(path, "wb") as file:
        file.write(text + b',\n  "manifest_crc32c": "%s"\n}\n' % crc32c(text).encode())


def tensors(path):
    """The tensors of a safetensors file: name -> (shape, bytes)."""
    data = read(path)
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            found[name] = (tuple(entry["shape"]), data[8 + length + first : 8 + length + last])
    return found


def digest_folder(path):
    """A digest of each tensor in the safetensors files of a folder, independent of its distribution over files."""
    digests = {}
    for name in sorted(os.listdir(path)):
        if name.endswith(".safetensors"):
            for tensor, (shape, data) in tensors(os.path.join(path, name)).items():
                if tensor in digests:
                    raise Damaged(f"{path}: {tensor} is in two files")
                digests[tensor] = f"{shape} {hashlib.sha256(data).hexdigest()[:16]}"
    return digests


class Checkpoint:
    """A committed checkpoint, read completely and compared with all its checksums."""

    def __init__(self, path):
        self.path = path
        try:
            self._read()
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise Damaged(f"{path}: {error}") from error

    def _read(self):
        text = read(os.path.join(self.path, "manifest.json"))
        trailer = TRAILER.search(text)
        if not trailer or crc32c(text[: trailer.start()]) != trailer[1].decode():
            raise Damaged(f"{self.path}/manifest.json does not match its checksum")
        self.manifest = json.loads(text)
        self.step = self.manifest["step"]
        if os.path.basename(self.path) != f"step-{self.step:08d}":
            raise Damaged(f"{self.path} holds step {self.step}")
        self._compare_files()
        expected = sorted(row["name"] for row in self.manifest["parameters"])
        self.digests = {}
        for folder in self.manifest["folders"]:
            found = digest_folder(os.path.join(self.path, folder))
            if sorted(found) != expected:
                raise Damaged(f"{self.path}/{folder} holds {len(found)} tensors, expected {len(expected)}")
            self.digests.update({f"{folder}/{name}": value for name, value in found.items()})

    def _compare_files(self):
        listed = {row["path"]: row for row in self.manifest["files"]}
        there = {
            os.path.relpath(os.path.join(folder, name), self.path)
            for folder, _, names in os.walk(self.path)
            for name in names
        } - {"manifest.json"}
        if there != set(listed):
            raise Damaged(f"{self.path}: files and manifest differ by {sorted(there ^ set(listed))}")
        for name, row in listed.items():
            data = read(os.path.join(self.path, name))
            if len(data) != row["bytes"] or crc32c(data) != row["crc32c"]:
                raise Damaged(f"{self.path}/{name} does not match its checksum")


class RunFolder:
    """A run folder on disk."""

    def __init__(self, path):
        self.path = path
        self.checkpoints = os.path.join(path, "checkpoints")

    def names(self):
        """The entries of checkpoints/."""
        try:
            return sorted(os.listdir(self.checkpoints))
        except FileNotFoundError:
            return []

    def partials(self):
        return [name for name in self.names() if name.startswith(".partial-")]

    def steps(self):
        """The committed steps, ascending."""
        return sorted(int(match[1]) for match in map(STEP_NAME.match, self.names()) if match)

    def checkpoint_path(self, step):
        return os.path.join(self.checkpoints, f"step-{step:08d}")

    def checkpoint(self, step):
        return Checkpoint(self.checkpoint_path(step))

    def losses(self):
        """The logged steps of metrics.jsonl in order, as (step, loss); a line that is not JSON is an error."""
        found = []
        with open(os.path.join(self.path, "metrics.jsonl"), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise Damaged(f"metrics.jsonl, line {number}: {line!r}") from error
                if record["kind"] == "step":
                    found.append((record["step"], record["loss"]))
        return found

    def model(self):
        """Digests of the final model of a finished run: the averaged weights as a pipeline."""
        return digest_folder(os.path.join(self.path, "model", "unet"))
