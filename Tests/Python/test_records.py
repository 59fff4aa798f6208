"""Reads the records of a run that was killed twice and resumed with TensorBoard's reader and wandb's client."""

import hashlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from conftest import settings
from program import PROGRAM, REPOSITORY, disttrain
from wandb_server import Server

sys.path.append(str(REPOSITORY / "Tests/Integration"))
import read_records  # noqa: E402

PATIENCE = 600  # seconds; only ends a hang
STEPS, KILLS = 60, (13, 27)
OPTIONS = settings(
    f"train.steps={STEPS}", "train.batch_size=4", "train.log_every=1", "train.sample_every=4",
    "train.checkpoint_every=10", "sampling.count=2", "sampling.steps=2", "optimizer.warmup_steps=2",
    "data.count=200", "logging.wandb=offline")
SECONDS = ("data", "compute", "communication", "total")


@pytest.fixture(scope="module")
def run(scratch_root):
    return recorded(scratch_root, lambda run: None)


def recorded(scratch, after_a_kill):
    """The run, killed at two steps, from which on it is slowed, so that no kill is too late on a busy machine."""
    run = scratch / "recorded"
    library = scratch / "interpose.so"
    subprocess.run([REPOSITORY / "Tests/Faults/build.sh", library], check=True)
    command = ["train", "--config", REPOSITORY / "configs/tiny.yaml", "--output", run, *OPTIONS]
    for step in KILLS:
        # Its own first line, and one for each step since the checkpoint that it starts from.
        first = max([0, *(int(path.name[5:]) for path in run.glob("checkpoints/step-*"))])
        lines = 1 + step - first
        slow = {"LD_PRELOAD": library, "FAULT_PATH": run, "FAULT_RANK": "all", "FAULT_ACTION": "delay",
                "FAULT_SECONDS": "1", "FAULT_CALL": "pwrite*", "FAULT_FILE": "metrics.jsonl",
                "FAULT_AT": lines + 1, "FAULT_TIMES": "0"}
        with subprocess.Popen(
            [PROGRAM, *command], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **{key: str(value) for key, value in slow.items()}},
        ) as process:
            deadline = time.monotonic() + PATIENCE
            while not any(line["step"] == step for line in logged(run)):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        after_a_kill(run)
    assert "Resuming from" in disttrain(*command)
    return run


def logged(run):
    """The steps of metrics.jsonl; the last line may still be incomplete."""
    try:
        lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [line for line in map(json.loads, lines) if line["kind"] == "step"]


def expected(run):
    """{name: [(step, value)]} of every scalar except the norms by block."""
    series = {}
    for line in logged(run):
        values = {f"train/{name}": line[name] for name in (
            "loss", "lr", "grad_norm", "epoch", "samples_seen", "images_per_second")}
        values |= {f"seconds/{name}": line["seconds"][name] for name in SECONDS}
        for name, value in values.items():
            series.setdefault(name, []).append((line["step"], value))
    assert [step for step, _ in series["train/loss"]] == list(range(1, STEPS + 1))
    return series


def samples(run):
    """{step: bytes of the PNG file}."""
    return {int(path.stem.split("_")[1]): path.read_bytes() for path in (run / "samples").glob("samples_*.png")}


def read(png):
    return numpy.array(Image.open(io.BytesIO(png)))


def test_tensorboard_reads_everything(run):
    (file,) = (run / "tensorboard").iterdir()
    kinds = ("scalars", "images", "histograms", "tensors", "compressedHistograms")
    events = EventAccumulator(str(file), size_guidance=dict.fromkeys(kinds, 0))
    events.Reload()
    series = expected(run)
    blocks = [tag for tag in events.Tags()["scalars"] if tag.startswith("grad_norm_by_block/")]
    assert len(blocks) == 9 and set(events.Tags()["scalars"]) == set(series) | set(blocks)
    for name, values in series.items():
        found = events.Scalars(name)
        assert [event.step for event in found] == [step for step, _ in values], name
        assert [event.value for event in found] == [float(numpy.float32(value)) for _, value in values], name
    # Each step is logged, so the norm is that of the step, like those by block.
    squares = numpy.sum([[event.value**2 for event in events.Scalars(tag)] for tag in blocks], axis=0)
    norms = [value for _, value in series["train/grad_norm"]]
    assert numpy.allclose(numpy.sqrt(squares), norms, rtol=1e-5)
    histograms = events.Histograms("grad_norm_by_block")
    assert [event.step for event in histograms] == list(range(1, STEPS + 1))
    assert all(event.histogram_value.num == sum(event.histogram_value.bucket) == 9 for event in histograms)
    pictures = {event.step: event.encoded_image_string for event in events.Images("samples")}
    assert len(events.Images("samples")) == len(pictures) and pictures == samples(run)
    (text,) = events.Tensors("configuration")
    assert "train:" in text.tensor_proto.string_val[0].decode()


def records(run):
    """All records of wandb's log; wandb's schema must define every field."""
    for data in read_records.wandb_records(run):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        record.DiscardUnknownFields()
        assert record.ByteSize() == len(data)
        yield record


def folder_of(run):
    (folder,) = (run / "wandb").glob("offline-run-*")
    return folder


def test_wandb_knows_every_record(run):
    found = list(records(run))
    kinds = [record.WhichOneof("record_type") for record in found]
    assert kinds[:4] == ["header", "run", "environment", "files"] and kinds[-1] == "exit"
    assert [record.num for record in found] == list(range(1, len(kinds) + 1))
    (path,) = folder_of(run).glob("run-*.wandb")
    assert path.stat().st_size > 2 * 32768, "too short to cross a block boundary"
    assert [record.history.step.num for record in found if record.HasField("history")] == list(range(STEPS + 1))


def sync(folder, server, home):
    """Runs `wandb sync` against a server on loopback, to which all its requests go."""
    home.mkdir(exist_ok=True)
    wandb = pathlib.Path(sys.executable).with_name("wandb")
    result = subprocess.run(
        [wandb, "sync", folder], env=server.environment(home), cwd=home, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
    assert result.returncode == 0 and "Finished syncing" in result.stdout, result.stdout
    assert not server.unknown, server.unknown
    assert list(server.runs) == [folder.name.split("-")[-1]]
    return server.runs[folder.name.split("-")[-1]]


def check_upload(run, upload):
    """Every step, picture and value of the summary arrived, each once."""
    assert upload.exit_code == 0 and upload.is_complete
    assert upload.variables["displayName"] == "tiny" and upload.variables["project"] == "disttrain"
    config = {key: entry["value"] for key, entry in upload.config.items() if key != "_wandb"}
    assert config["train"]["steps"] == STEPS and config["logging"]["wandb"] == "offline"
    assert not upload.repeated

    series, pictures = {}, {}
    rows = upload.rows()
    assert [row["_step"] for row in rows] == list(range(STEPS + 1))
    for row in rows:
        for name, value in row.items():
            if name == "samples":
                content = upload.files[value["path"]]
                assert value["_type"] == "image-file" and value["size"] == len(content)
                assert value["sha256"] == hashlib.sha256(content).hexdigest()
                assert read(content).shape == (value["height"], value["width"], 3)
                pictures[row["_step"]] = content
            elif not name.startswith(("_", "grad_norm_by_block/")):
                series.setdefault(name, []).append((row["_step"], value))
    assert series == expected(run)
    assert pictures == samples(run)
    blocks = [name for name in rows[-1] if name.startswith("grad_norm_by_block/")]
    assert len(blocks) == 9 and all(set(blocks) <= set(row) for row in rows[1:])

    # The summary contains the last value of every key.
    last = {}
    for row in rows:
        last.update(row)
    assert {key: value for key, value in upload.summary().items() if key != "_wandb"} == last
    assert len(upload.streams["wandb-events.jsonl"]) == STEPS  # system metrics, one line for each logged step

    # All files, each uploaded once: the pictures are those of the rows.
    assert set(upload.uploads.values()) == {1}
    media = {name for name in upload.files if name.startswith("media/images/")}
    assert media == {row["samples"]["path"] for row in rows if "samples" in row}
    assert {"config.yaml", "wandb-metadata.json", "wandb-summary.json"} <= set(upload.files) - media


def test_wandb_sync_uploads_everything_once(run, tmp_path):
    with Server() as server:
        check_upload(run, sync(folder_of(run), server, tmp_path / "home"))


def test_wandb_sync_between_a_kill_and_a_resume(tmp_path):
    """An upload of the killed run shows its progress; the resumed run is uploaded completely again, without options."""
    killed = []

    def upload(run):
        with Server() as server:
            killed.append(sync(folder_of(run), server, tmp_path / "home"))

    run = recorded(tmp_path, upload)
    for upload_of_killed, step in zip(killed, KILLS):
        steps = [row["_step"] for row in upload_of_killed.rows()]
        # wandb's row of a step is held back until the next step.
        assert steps == list(range(len(steps))) and step - 1 <= steps[-1] <= step
        assert upload_of_killed.exit_code not in (None, 0)
    with Server() as server:
        check_upload(run, sync(folder_of(run), server, tmp_path / "home"))
