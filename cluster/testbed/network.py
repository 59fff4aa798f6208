"""The network between hosts: a bridge in a namespace of its own, a veth pair to each host, and what slows it down.

                        hub (bridge)
            ┌────────────────┼───────────────┐
          port0            far1            port2          fabric namespace
            │                │ delay.c       │            (near1 and side1 exist only while latency
            │              near1             │             or loss is asked for on that host)
            │                │ side1         │
            │              port1             │
      ──────┼────────────────┼───────────────┼──────
          eth0             eth0            eth0           one namespace each
        10.77.0.1       10.77.0.2       10.77.0.3

Bandwidth: a token bucket (tc tbf) on eth0 limits what the host sends, another on portN what it receives, as the two
directions of a full-duplex card. Latency and loss: delay.c, on what the host sends, as netem on eth0 would.
"""

import os
import re
import signal
import subprocess
from dataclasses import dataclass

from base import HERE, TestbedError, command, command_line, pids_inside, wait_until

UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
BRIDGE = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0"  # a plain switch: forwards at once
QUEUE_MS = 50  # what a token bucket holds before it drops; a switch with shallow buffers has less
BURST_MS = 1  # what may pass at line speed after a pause: small beside a gradient, large beside a timer's error


@dataclass
class Shape:
    """What one host's link is like. None and 0: as fast as the kernel."""

    bandwidth: str | None = None  # "100mbit", each direction
    latency_ms: float = 0  # added to every frame that leaves the host
    loss_percent: float = 0  # of the frames that leave the host


def bits_per_second(bandwidth):
    found = re.fullmatch(r"([0-9.]+)(kbit|mbit|gbit)", str(bandwidth).lower())
    if not found:
        raise TestbedError(f"bandwidth '{bandwidth}': expected a number and kbit, mbit or gbit, such as 100mbit")
    return float(found[1]) * UNITS[found[2]]


def mac(index):
    """The same after a restart of the host, so that the others' address tables stay true."""
    return f"02:00:0a:4d:00:{index + 1:02x}"


class Fabric:
    """The network, from outside. `keeper` is the first process of its namespace, as seen from here."""

    def __init__(self, keeper, folder):
        self.keeper = keeper
        self.folder = folder

    def inside(self, keeper, arguments, what, **options):
        return command(["nsenter", f"--target={keeper}", "--net", *arguments], what, **options)

    def ip(self, keeper, what, *lines):
        self.inside(keeper, ["ip", "-batch", "-"], what, input="\n".join(lines) + "\n")

    def create(self):
        self.ip(self.keeper, "making the bridge", f"link add hub {BRIDGE}", "link set hub up")

    def plug(self, index, host, address):
        """Joins host `index`, whose first process is `host`, to the bridge. Neither end is ever seen outside."""
        self.ip(self.keeper, f"joining host {index}",
                f"link add port{index} type veth peer name eth0 address {mac(index)} netns {host}",
                f"link set port{index} master hub up")
        self.ip(host, f"giving host {index} its address", f"address add {address} dev eth0", "link set eth0 up")

    def shape(self, index, host, shape):
        """Makes the link of a host be as asked, whatever it was before."""
        for keeper, device in [(host, "eth0"), (self.keeper, f"port{index}")]:
            if shape.bandwidth:
                rate = bits_per_second(shape.bandwidth)
                burst = max(int(rate / 8 * BURST_MS / 1000), 8 * 1024)
                self.inside(keeper, ["tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{rate:.0f}bit",
                                     "burst", f"{burst}b", "latency", f"{QUEUE_MS}ms"], f"limiting {device}")
            else:
                subprocess.run(["nsenter", f"--target={keeper}", "--net", "tc", "qdisc", "del", "dev", device, "root"],
                               capture_output=True)  # fails where there was no limit
        self._remove_line(index)
        if shape.latency_ms or shape.loss_percent:
            self._insert_line(index, shape)

    def _program(self):
        """delay.c, built when first needed."""
        program = self.folder / "delay"
        if not program.exists():
            command(["gcc", "-O2", "-o", program, HERE / "delay.c"], "building delay.c")
        return program

    def _insert_line(self, index, shape):
        if not os.path.exists("/dev/net/tun"):
            raise TestbedError("latency and loss need /dev/net/tun, which is not there: run modprobe tun")
        near, far, side, port = f"near{index}", f"far{index}", f"side{index}", f"port{index}"
        command(["nsenter", f"--target={self.keeper}", "--net", "--pid", "--", self._program(), near, far,
                 round(shape.latency_ms * 1000), round(shape.loss_percent * 10_000)], f"delaying host {index}")
        self.ip(self.keeper, f"delaying host {index}",
                f"link add {side} {BRIDGE}", f"link set {near} master {side} up", f"link set {far} master hub up",
                f"link set {side} up", f"link set {port} master {side}")

    def _remove_line(self, index):
        for pid in pids_inside(self.keeper):
            if command_line(pid)[1:2] == [f"near{index}"]:
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda: pid not in pids_inside(self.keeper), 5, f"end of the line of host {index}")
                self.ip(self.keeper, f"joining host {index}", f"link set port{index} master hub",
                        f"link del side{index}")

    def unplug(self, index):
        """What is left of the link of a host that died; its other end went with the host, in its own time."""
        self._remove_line(index)
        subprocess.run(["nsenter", f"--target={self.keeper}", "--net", "ip", "link", "del", f"port{index}"],
                       capture_output=True)  # fails where it went already

    def cut(self, index, unplug):
        if unplug:
            self.ip(self.keeper, f"unplugging host {index}", f"link set port{index} down")
        else:
            self.inside(self.keeper, ["bridge", "link", "set", "dev", f"port{index}", "state", "0"],
                        f"cutting host {index} off")

    def mend(self, index):
        self.ip(self.keeper, f"mending the link of host {index}", f"link set port{index} up")
        self.inside(self.keeper, ["bridge", "link", "set", "dev", f"port{index}", "state", "3"],
                    f"mending the link of host {index}")
