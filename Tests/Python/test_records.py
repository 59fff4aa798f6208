"""TensorBoard's and wandb's own readers on the records of a run that was killed twice and resumed."""

import hashlib
import io
import json
import signal
import subprocess
import time

import numpy
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal import datastore

from conftest import settings
from program import PROGRAM, REPOSITORY, disttrain


STEPS, KILLS = 60, (13, 27)
OPTIONS = settings(
    f"train.steps={STEPS}", "train.batch_size=4", "train.log_every=1", "train.sample_every=4",
    "train.checkpoint_every=10", "sampling.count=2", "sampling.steps=2", "optimizer.warmup_steps=2",
    "data.count=200", "logging.wandb=offline")
SECONDS = ("data", "compute", "communication", "total")


@pytest.fixture(scope="module")
def run(scratch_root):
    run = scratch_root / "recorded"
    command = ["train", "--config", REPOSITORY / "configs/tiny.yaml", "--output", run, *OPTIONS]
    for step in KILLS:
        with subprocess.Popen(
            [PROGRAM, *command], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 120
            while not any(line["step"] == step for line in logged(run)):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert "Resuming from" in disttrain(*command)
    return run


def logged(run):
    """The steps of metrics.jsonl; a last line may still be on its way."""
    try:
        lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [line for line in map(json.loads, lines) if line["kind"] == "step"]


def expected(run):
    """{name: [(step, value)]} of every scalar but the norms by block."""
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
    # Each step is logged, so the norm is the step's own, as those by block are.
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


def stored(run):
    """(bytes, record) for all that wandb finds in the log."""
    (path,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    wandb._assert_is_internal_process = True
    store = datastore.DataStore()
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        # wandb knows every field.
        record.DiscardUnknownFields()
        assert record.ByteSize() == len(data)
        yield data, record
    assert store.get_offset() == path.stat().st_size


def records(run):
    return [record for _, record in stored(run)]


def test_wandb_reads_everything(run):
    kinds = [record.WhichOneof("record_type") for record in records(run)]
    assert kinds[:4] == ["header", "run", "environment", "files"] and kinds[-1] == "exit"
    assert [record.num for record in records(run)] == list(range(1, len(kinds) + 1))
    folder = next((run / "wandb").iterdir())
    series, pictures, steps = {}, {}, []
    for record in records(run):
        if record.HasField("run"):
            assert folder.name.endswith(f"-{record.run.run_id}") and record.run.display_name == "tiny"
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            assert config["train"]["steps"] == STEPS and config["logging"]["wandb"] == "offline"
        if record.HasField("exit"):
            assert record.exit.exit_code == 0
        if not record.HasField("history"):
            continue
        items = {item.key: json.loads(item.value_json) for item in record.history.item}
        step = record.history.step.num
        assert items.pop("_step") == step
        steps.append(step)
        picture = items.pop("samples", None)
        if picture:
            pictures[step] = (folder / "files" / picture["path"]).read_bytes()
            assert picture["_type"] == "image-file" and picture["size"] == len(pictures[step])
            assert picture["sha256"] == hashlib.sha256(pictures[step]).hexdigest()
            assert read(pictures[step]).shape == (picture["height"], picture["width"], 3)
        for name, value in items.items():
            if not name.startswith(("_", "grad_norm_by_block/")):
                series.setdefault(name, []).append((step, value))
    assert steps == list(range(STEPS + 1))
    assert series == expected(run)
    assert pictures == samples(run)
    assert len(list((folder / "files/media/images").iterdir())) == len(pictures)


def test_wandb_frames_the_same_bytes(run, tmp_path):
    """The records once more, framed by wandb."""
    (path,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    again = tmp_path / "again.wandb"
    wandb._assert_is_internal_process = True
    store = datastore.DataStore()
    store.open_for_write(str(again))
    for data, _ in stored(run):
        store._write_data(data)
    store.close()
    assert path.stat().st_size > 2 * 32768, "too short to cross borders of blocks"
    assert again.read_bytes() == path.read_bytes()
