"""kill -9 of one rank, of all ranks, and of mpirun, at random times; half of them during a save."""

import time

from lab import kill
from trial import Trial

VICTIMS = ["rank 0", "rank 1", "all", "mpirun"]
# About a second of training with many saves, so that the kills hit different points.
SETTINGS = {"train__steps": 60, "train__checkpoint_every": 4}
PER_TASK = 8


def tasks(lab, options):
    lab.reference(2, **SETTINGS)
    victims = [VICTIMS[index % 4] for index in range(options.kills)]
    moments = ["anywhere" if index // 4 % 2 == 0 else "in a save" for index in range(options.kills)]
    plan = list(zip(victims, moments))
    return [
        lambda part=plan[first : first + PER_TASK], seed=lab.random.random(): kill_again_and_again(lab, part, seed)
        for first in range(0, len(plan), PER_TASK)
    ]


def kill_again_and_again(lab, plan, seed):
    """Runs are killed and resumed until all planned kills have been made; each run is then resumed to its end."""
    chance = type(lab.random)(seed)
    plan, outcomes = list(plan), []
    while plan:
        trial = Trial(lab, "kill -9", "", 2, **SETTINGS)
        done = []
        while plan:
            victim, moment = plan[0]
            job = trial.start()
            killed = strike(trial, job, victim, moment, chance)
            ending = trial.end(job, is_resume=bool(done))
            if ending.code == 0:
                break
            if not killed:
                trial.problem(f"ended with {ending.label} by itself: {ending.tail()}")
                plan.pop(0)
                break
            done.append(f"{victim} {moment}")
            trial.result.kills += 1
            plan.pop(0)
        if ending.code == 0:
            trial.compare()
        else:
            trial.finish()
        trial.result.detail = ", ".join(done)
        outcomes.append(trial.done())
    return outcomes


def strike(trial, job, victim, moment, chance):
    """Kills the victim at the chosen time; returns False if the job had ended before."""
    if moment == "anywhere":
        wait = chance.uniform(0, 0.9 * trial.reference.seconds)
    else:
        known = set(trial.run.partials())
        saves = chance.randint(1, 6)
        while saves > 0:
            if job.process.poll() is not None:
                return False
            new = [name for name in trial.run.partials() if name not in known and "-expired" not in name]
            known.update(new)
            saves -= len(new)
            time.sleep(0.0005)
        wait = chance.uniform(0, 0.02)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        if job.process.poll() is not None:
            return False
        time.sleep(0.0005)
    if victim == "all":
        job.kill_all()
    elif victim == "mpirun":
        kill(job.process.pid)
    else:
        rank = victim.split()[1]
        while rank not in job.rank_pids():
            if job.process.poll() is not None:
                return False
            time.sleep(0.001)
        kill(job.rank_pids()[rank])
    return True
