"""The command line that hosts.py and slurm.py share."""

import argparse
import signal
import sys

import base
from base import TestbedError

DEFAULT_NAME = "default"


def parser(kind):
    top = argparse.ArgumentParser(prog=f"{'slurm' if 'slurm' in kind.packages else 'hosts'}.py",
                                  description="A cluster on this machine. Needs root.")
    top.add_argument("--name",
                     help=f"which cluster, '{DEFAULT_NAME}' unless given; for clean: all that no test program holds")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, text):
        return verbs.add_parser(name, help=text, description=text)

    up = verb("up", "start a cluster, until `down`")
    up.add_argument("count", type=int, metavar="N", help="hosts")
    up.add_argument("--share", action="append", default=[], metavar="DIR",
                    help="folder below /tmp that hosts shall see")
    verb("down", "end the cluster")
    verb("clean", "end and remove whatever any test bed left behind")
    verb("status", "hosts, addresses, processes, shapes")
    run = verb("run", "run a command on a host; exits as it does")
    run.add_argument("host")
    run.add_argument("command", nargs="+")
    mpirun = verb("mpirun", "run a command under mpirun on all hosts, from node0")
    mpirun.add_argument("-n", type=int, default=1, metavar="RANKS", help="ranks on each host, 1 unless given")
    mpirun.add_argument("command", nargs="+")
    shape = verb("shape", "make links slow; without options, fast again")
    shape.add_argument("host", nargs="?", help="all, unless named")
    shape.add_argument("--bandwidth", metavar="RATE", help="100mbit, in each direction")
    shape.add_argument("--latency", type=float, default=0, metavar="MS", help="of what leaves the host")
    shape.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="of what leaves the host")
    for name, text in FAULTS.items():
        verb(name, text).add_argument("host")
    return top


FAULTS = {
    "cut": "let no frame pass to or from a host",
    "mend": "undo cut",
    "freeze": "stop all processes of a host",
    "thaw": "undo freeze",
    "kill-host": "end a host, as by a power cut",
    "start-host": "bring back a host after kill-host",
    "refuse-ssh": "end the sshd of a host",
    "allow-ssh": "undo refuse-ssh",
    "add-dead-interface": "add a docker0 that leads nowhere to a host",
}


def status(cluster):
    for index in range(cluster.count):
        shape = cluster.shapes[index]
        if cluster.keepers[index] is None:
            state = "dead"
        else:
            state = "frozen" if index in cluster.frozen else f"{len(cluster.pids(index))} processes"
        print(f"{cluster.names[index]}  {cluster.address(index)}  {state}  {shape.bandwidth or 'unlimited'}"
              f"  +{shape.latency_ms:g} ms  {shape.loss_percent:g} % loss")
    print(f"shared folder: {cluster.folder / 'shared'}")


def act(kind, given):
    """Does what the words on the command line say and returns the exit status."""
    if given.verb == "clean":
        removed, left = base.clean(given.name)
        print(f"removed: {', '.join(removed)}" if removed else "nothing was left")
        if left:
            print(f"not touched, since their test programs run: {', '.join(left)}")
            print("--name NAME removes one all the same")
        return 0
    name = given.name or DEFAULT_NAME
    if given.verb == "up":
        cluster = kind(given.count, name, given.share, owned=False).up()
        status(cluster)
        return 0
    cluster = kind.attach(name)
    match given.verb:
        case "down":
            cluster.down()
        case "status":
            status(cluster)
        case "run":
            return pass_through(cluster, given.host, given.command)
        case "mpirun":
            return pass_through(cluster, 0, cluster.mpirun(given.command, ranks_per_host=given.n))
        case "shape":
            cluster.shape(given.host, given.bandwidth, given.latency, given.loss)
        case fault:
            getattr(cluster, fault.replace("-", "_"))(given.host)
    return 0


def pass_through(cluster, host, command):
    process = cluster.spawn(host, command, stdin=None)

    def pass_on(number, _):
        process.send_signal(number)

    # The command receives Ctrl-C from the terminal itself; signals to this process alone are forwarded.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    code = process.wait()
    return code if code >= 0 else 128 - code


def main(kind):
    def end(number, _):
        raise SystemExit(128 + number)  # so that `up`, half done, is undone

    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(act(kind, parser(kind).parse_args()))
    except TestbedError as error:
        sys.exit(f"{parser(kind).prog.removesuffix('.py')}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
