"""Faults in the environment of a run: other numbers of ranks, a truncated metrics line, pipes, clocks, a stopped
process."""

import fcntl
import json
import os
import signal
import threading
import time

import calls
from damage import stopped_run
from checkpoint import Checkpoint, read
from lab import Fault, Job, kill
from trial import Trial


# --- Numbers of ranks -------------------------------------------------------------------------------------


def rank_tasks(lab, options):
    del options
    return [lambda: [ranks_in_turn(lab)]] + [lambda ranks=ranks: [resharded(lab, ranks)] for ranks in (1, 2, 3, 4)]


def ranks_in_turn(lab):
    """1, 2, 3, 4, 1 ranks: the losses have no gap and no repeat, and equal those of one rank."""
    trial = Trial(lab, "ranks 1-2-3-4-1", "", 1, train__steps=10)
    for index, ranks in enumerate((1, 2, 3, 4, 1)):
        last = 2 * index + 2
        job = trial.start(ranks=ranks, train__steps=last)
        ending = trial.wait(job)
        trial.result.restarts += index > 0
        trial.expect(ending.code == 0, f"{ranks} ranks ended with {ending.label}: {ending.tail()}")
        trial.expect(last in trial.run.steps(), f"{ranks} ranks left the checkpoints {trial.run.steps()}")
        if index > 0:
            trial.expect(f"step {last - 2}" in ending.text and "Resuming from" in ending.text,
                         f"{ranks} ranks did not resume from step {last - 2}: {ending.tail(20)}")
    losses, expected = trial.run.losses(), trial.reference.losses
    trial.expect([step for step, _ in losses] == list(range(1, 11)), f"logged steps: {[step for step, _ in losses]}")
    trial.expect(all(abs(one - other) <= 1e-5 * other for (_, one), (_, other) in zip(losses, expected)),
                 f"losses {losses}, expected {expected}")
    trial.result.is_equal = not trial.result.problems
    return trial.done()


def resharded(lab, ranks):
    """Other numbers of ranks read a checkpoint of two ranks, without a further step: the state is the same."""
    trial = Trial(lab, "re-sharding alone", f"2 to {ranks}", 2)
    whole = trial.reference.run.checkpoint_path(6)
    job = Job(lab, trial.run.path, ranks, resume=whole)
    ending = trial.wait(job)
    trial.result.restarts += 1
    trial.expect(ending.code == 0, f"ended with {ending.label}: {ending.tail()}")
    if ending.code == 0:
        trial.expect(trial.run.model() == trial.reference.model, "model/ differs")
        for step in trial.run.steps():
            trial.expect(trial.run.checkpoint(step).digests == trial.reference.checkpoints[step],
                         f"step {step} differs")
    if lab.can_reshard:
        output = lab.place("resharded")
        code, text = lab.checkpoint("reshard", whole, "--ranks", str(ranks), "--output", output)
        if trial.expect(code == 0, f"`checkpoint reshard` ended with {code}: {text}"):
            found = Checkpoint(os.path.join(output, "step-00000006"))
            trial.expect(found.digests == trial.reference.checkpoints[6], "`checkpoint reshard` changed the state")
    trial.result.is_equal = not trial.result.problems
    return trial.done()


# --- metrics.jsonl ----------------------------------------------------------------------------------------


def torn(text):
    """Replaces the lines of metrics.jsonl after step 4 with this text."""

    def change(path):
        lines = read(path).splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line).get("step", 0) <= 4]
        with open(path, "wb") as file:
            file.write(b"".join(kept) + text(lines[len(kept)]))

    return change


TEARS = {
    "half a line": torn(lambda line: line[: len(line) // 2]),
    "a line without its end": torn(lambda line: line[:-1]),
    "zeros, as after a power cut": torn(lambda line: bytes(len(line))),
    "half a line, then a line": torn(lambda line: line[: len(line) // 2] + b"\n" + line),
}


def metrics_tasks(lab, options):
    del options
    start = stopped_run(lab)
    return [lambda name=name: [torn_metrics(lab, start, name)] for name in TEARS]


def torn_metrics(lab, start, name):
    trial = Trial(lab, "metrics.jsonl torn", name, 2, start=start, keep_last=1000)
    TEARS[name](os.path.join(trial.run.path, "metrics.jsonl"))
    trial.result.injected += 1
    ending = trial.finish()
    trial.expect("step-00000004" in ending.text, f"not resumed from step 4: {ending.tail()}")
    return trial.done()


# --- Pipes ------------------------------------------------------------------------------------------------


def pipe_tasks(lab, options):
    del options
    return [
        lambda how=how, ranks=ranks, launch=launch, both=both: [pipe(lab, how, ranks, launch, both)]
        for how in ("full", "closed") for ranks, launch in ((0, False), (2, False), (2, True))
        for both in (False, True)
    ]


def pipe(lab, how, ranks, launch, both):
    """The run's output is not read: the run continues to its end anyway. mpirun then waits for its reader."""
    starter = "launch" if launch else "mpirun" if ranks else "bare"
    trial = Trial(lab, f"pipe {how}", f"{starter}, standard output{' and error' if both else ''}", ranks)
    reader, writer = os.pipe()
    if how == "full":
        fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
        try:
            while True:
                os.write(writer, bytes(1))
        except BlockingIOError:
            fcntl.fcntl(writer, fcntl.F_SETFL, 0)
    else:
        os.close(reader)
    job = trial.start(launch=launch, stdout=writer, stderr=writer if both else None)
    os.close(writer)
    if how == "full":
        job.wait_for_ranks()
        threading.Thread(target=drain, args=[reader]).start()
    ending = trial.wait(job)
    trial.result.injected += 1
    trial.expect(ending.code == 0 and not ending.is_hung, f"ended with {ending.label}: {ending.tail()}")
    trial.check()
    trial.compare() if ending.code == 0 else trial.finish()
    return trial.done()


def drain(reader):
    while os.read(reader, 1 << 16):
        pass
    os.close(reader)


# --- Time -------------------------------------------------------------------------------------------------


def time_tasks(lab, options):
    del options
    return [lambda: [clock_back(lab)], lambda: [clock_back_at_a_start(lab)]] + [
        lambda rank=rank: [stopped_process(lab, rank)] for rank in ("0", "1")]


def clock_back(lab):
    """The wall clock is set back by an hour during a run."""
    trial = Trial(lab, "clock set back", "during the second save", 2, keep_last=1)
    save = calls.second_save(trial.reference.job, "0")[0]
    job = trial.start(save.fault("clock", "0"))
    ending = trial.end(job)
    trial.result.injected += 1
    trial.reached(job, "0")
    trial.expect(ending.code == 0, f"ended with {ending.label}: {ending.tail()}")
    trial.compare()
    times = [json.loads(line)["time"] for line in open(os.path.join(trial.run.path, "metrics.jsonl"), encoding="utf-8")]
    trial.expect(min(times) < max(times) - 3000, "the clock change does not appear in metrics.jsonl: the test shows nothing")
    return trial.done()


def clock_back_at_a_start(lab):
    """A run is killed and resumed with the clock an hour earlier: the step determines which checkpoint is the
    newest."""
    trial = Trial(lab, "clock set back", "between two starts", 2)
    save = calls.second_save(trial.reference.job, "0")
    job = trial.start(save[-1].fault("kill", "0"))
    trial.end(job)
    trial.reached(job, "0")
    trial.result.kills += 1
    newest = max(trial.run.steps())
    ending = trial.end(trial.start(Fault("clock", "*", rank="all")), is_resume=True)
    trial.result.injected += 1
    trial.expect(ending.code == 0, f"ended with {ending.label}: {ending.tail()}")
    trial.expect(f"step-{newest:08d}" in ending.text, f"not resumed from step {newest}: {ending.tail()}")
    trial.compare()
    return trial.done()


def stopped_process(lab, rank):
    """A rank is stopped during a save and continued a second later."""
    trial = Trial(lab, "rank stopped for a second", f"rank {rank}", 2)
    save = calls.second_save(trial.reference.job, rank)
    job = trial.start(save[len(save) // 2].fault("stop", rank))
    while not job.hits(rank) and job.process.poll() is None:
        time.sleep(0.01)
    trial.reached(job, rank)
    time.sleep(1)
    kill(job.rank_pids()[rank], signal.SIGCONT)
    trial.result.injected += 1
    ending = trial.end(job)
    trial.expect(ending.code == 0, f"ended with {ending.label}: {ending.tail()}")
    trial.compare()
    return trial.done()
