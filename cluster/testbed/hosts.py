#!/usr/bin/env python3
"""Hosts on one machine, as network namespaces that reach each other over a real network and by real ssh.

    with Cluster(3) as c:
        c.shape(bandwidth="100mbit", latency_ms=5)
        run = c.spawn(0, c.mpirun(["disttrain", "train", "--config", …]))
        c.cut(1)
        run.wait()

A host is named by its index or its name: 1 or "node1". It has its own name, addresses, processes, /tmp, /dev/shm,
/run, /etc/hosts, ssh and sshd (port 22, root, by key); it shares processors, memory and all other files with this
machine, as hosts share a file system. `c.folder / "shared"` is a place for a run's files that goes when the cluster
goes.

From a shell: `hosts.py up 3`, `hosts.py run node0 -- COMMAND`, `hosts.py down`, `hosts.py clean`; `hosts.py --help`.
"""

import dataclasses
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import base
from base import HERE, TestbedError, command
from network import Fabric, Shape

MPI_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Cluster:
    """`count` hosts. Every change goes to a file, so that another process can `attach` to a cluster by its name.

    - name: of the cluster; needed only where several run at once and a shell is to reach them
    - share: folders below /tmp, /dev/shm or /run that all hosts are to see
    - owned: the cluster ends with this process, however that ends; False leaves it until `down`
    - subnet: addresses of the hosts, the first one being node0's; two clusters may have the same
    """

    packages = ["hosts"]

    @staticmethod
    def host_names(count):
        """What the hosts of a cluster of `count` are called, in the order of their addresses."""
        return [f"node{index}" for index in range(count)]

    def __init__(self, count, name=None, share=(), owned=True, subnet="10.77.0.0/24"):
        self.name = name or f"test-{os.getpid()}-{os.urandom(2).hex()}"
        base.require_name(self.name)
        self.network = ipaddress.ip_network(subnet)
        if not 1 <= count <= min(64, self.network.num_addresses - 3):
            raise TestbedError(f"a cluster of {count} hosts in {subnet}: expected 1 to 64, and an address for each")
        self.folder = base.ROOT / self.name
        self.size = count
        self.names = self.host_names(count)
        self.count = len(self.names)
        self.share = [os.path.abspath(path) for path in share]
        self.owned = owned
        # The first process of each host, as seen from outside; None: the host is dead.
        self.keepers = [None] * self.count
        self.shapes = [Shape() for _ in self.names]
        self.frozen = {}  # index: the processes that were stopped
        self.fabric = None
        self._owner = self._reading = -1

    # Start and end

    def up(self):
        """Makes the hosts; about half a second, and 0.2 s more for each."""
        base.require_root()
        base.require_packages(*self.packages)
        if base.keepers(self.name) or self.folder.exists():
            raise TestbedError(f"cluster {self.name} is there already: end it with `down`, or choose another --name")
        try:
            (self.folder / "shared").mkdir(parents=True)
            self._write_settings()
            # Processes of the cluster detect the end of their owner as end-of-file on this pipe.
            if self.owned:
                self._reading, self._owner = os.pipe()
                owner = {"pid": os.getpid(), "started": base.start_time(os.getpid())}
                (self.folder / "owner.json").write_text(json.dumps(owner))
            self.fabric = Fabric(self._keep("fabric", {"remove": str(self.folder)}), self.folder)
            self.fabric.create()
            for index in range(self.count):
                self._boot(index)
        except BaseException:
            self.down()
            raise
        return self

    def down(self):
        """Ends every process of the cluster and removes its folder. Harmless where there is nothing to end."""
        base.kill_keepers(base.keepers(self.name))
        if self._owner >= 0:
            os.close(self._owner)
            os.close(self._reading)
            self._owner = -1
        if self.folder.exists():
            shutil.rmtree(self.folder)
        base.remove_root()

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    @classmethod
    def attach(cls, name):
        """The running cluster of that name."""
        base.require_root()
        base.require_name(name)
        try:
            state = json.loads((base.ROOT / name / "state.json").read_text())
        except FileNotFoundError:
            running = sorted({cluster for _, cluster, _ in base.keepers()})
            raise TestbedError(f"no cluster {name} (running: {', '.join(running) or 'none'}): start it with `up`")
        self = cls(state["size"], name, state["share"], owned=False, subnet=state["subnet"])
        self.keepers = state["keepers"]
        self.shapes = [Shape(**shape) for shape in state["shapes"]]
        self.frozen = {int(index): pids for index, pids in state["frozen"].items()}
        self.fabric = Fabric(state["fabric"], self.folder)
        return self

    # Names

    def index(self, host):
        """1 or "node1" -> 1."""
        if host in self.names:
            return self.names.index(host)
        if not str(host).isdigit() or int(host) >= self.count:
            raise TestbedError(f"host '{host}': expected one of {', '.join(self.names)}")
        return int(host)

    def hostname(self, host):
        return self.names[self.index(host)]

    def address(self, host):
        return str(self.network[self.index(host) + 1])

    # Commands

    def environment(self, extra=None):
        # TMPDIR may be a folder that exists only on this machine.
        kept = {key: value for key, value in os.environ.items() if key != "TMPDIR"}
        return kept | MPI_ENVIRONMENT | (extra or {})

    def spawn(self, host, arguments, env=None, cwd=None, **options):
        """Starts a command on a host and returns its Popen. Signals sent to it reach the command (send them to the
        process, not to its group); killed, it takes the command along, whose own children live on as after a kill."""
        index = self.index(host)
        if self.keepers[index] is None:
            raise TestbedError(f"{self.names[index]} is dead: start_host brings it back")
        folder = os.path.abspath(cwd or os.getcwd())
        entered = [sys.executable, "-I", HERE / "enter.py", str(self.keepers[index]), folder]
        options = {"text": True, "stdin": subprocess.DEVNULL} | options
        return subprocess.Popen([*entered, *map(str, arguments)], env=self.environment(env), **options)

    def run(self, host, arguments, timeout=None, check=False, **options):
        """Runs a command on a host to its end: a CompletedProcess with `stdout` and `stderr` as text.

        `check` makes a failure a TestbedError; after `timeout` seconds the command is killed: TimeoutExpired.
        """
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        with self.spawn(host, arguments, **options) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode != 0:
            reason = " ".join(((err or "") + (out or "")).split())[-300:]
            raise TestbedError(f"{arguments[0]} on {self.hostname(host)} exited {process.returncode}: {reason}")
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def mpirun(self, arguments, hosts=None, ranks_per_host=1, options=()):
        """The command line that starts `arguments` on hosts (all, unless named), to be run on one of them.

        The networks are named since hosts may have interfaces that lead nowhere; nothing is bound, and ranks that
        wait let others run, since all share the processors of one machine.
        """
        names = [self.hostname(host) for host in (range(self.count) if hosts is None else hosts)]
        return ["mpirun", "--host", ",".join(f"{name}:{ranks_per_host}" for name in names),
                "-np", str(len(names) * ranks_per_host), "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
                "--mca", "btl_tcp_if_include", str(self.network), "--mca", "oob_tcp_if_include", str(self.network),
                *options, *arguments]

    def pids(self, host, pattern=""):
        """Processes of a host whose command line contains `pattern`, as numbers of this machine; its sshd left out."""
        keeper = self.keepers[self.index(host)]
        lines = {pid: " ".join(base.command_line(pid)) for pid in base.pids_inside(keeper)} if keeper else {}
        return [pid for pid, line in lines.items() if line and pattern in line and "[listener]" not in line]

    def signal(self, host, number=signal.SIGKILL, pattern=""):
        """Sends a signal to processes of a host, all or those whose command line contains `pattern`; says how many."""
        chosen = self.pids(host, pattern)
        for pid in chosen:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return len(chosen)

    # Faults of the network

    def shape(self, host=None, bandwidth=None, latency_ms=0, loss_percent=0):
        """Makes the link of a host, or of all, slow; without arguments, fast again.

        - bandwidth: "100mbit", in each direction
        - latency_ms, loss_percent: of what leaves the host, so a round trip between two hosts of 5 ms takes 10 ms
        """
        for index in range(self.count) if host is None else [self.index(host)]:
            self.shapes[index] = Shape(bandwidth, latency_ms, loss_percent)
            self.fabric.shape(index, self._alive(index), self.shapes[index])
        self._save()

    def cut(self, host, unplug=False):
        """Lets no frame pass to or from a host; `unplug`: and the host sees that its cable is out."""
        self.fabric.cut(self.index(host), unplug)

    def mend(self, host):
        """Undoes `cut`."""
        self.fabric.mend(self.index(host))

    def add_dead_interface(self, host, name="docker0", address="172.17.0.1/16"):
        """An interface that is up and leads nowhere; by default as Docker's, with the same address on every host."""
        self.fabric.ip(self._alive(host), f"adding {name}",
                       f"link add {name} type bridge", f"link add {name}p type veth peer name {name}q",
                       f"link set {name}p master {name} up", f"link set {name}q up",  # so that it has a carrier
                       f"address add {address} dev {name}", f"link set {name} up")

    def remove_interface(self, host, name="docker0"):
        """Undoes `add_dead_interface`."""
        self.fabric.ip(self._alive(host), f"removing {name}", f"link del {name}", f"link del {name}p")

    def forget_name(self, host):
        """The name of a host no longer resolves, on any host; its address stays."""
        self._write_names(forgotten={self.index(host)})

    def remember_names(self):
        """Undoes `forget_name`."""
        self._write_names()

    # Faults of a host

    def freeze(self, host):
        """Stops every process of a host (SIGSTOP). Its kernel still answers, as that of a host that swaps itself to
        death: connections stay, and new ones are accepted but not served. With `cut` before it: a dead kernel."""
        index = self.index(host)
        stopped = set(self.frozen.get(index, []))
        while True:  # processes may have been born meanwhile
            running = [pid for pid in base.pids_inside(self._alive(index)) if pid not in stopped]
            if not running:
                break
            for pid in running:
                try:
                    os.kill(pid, signal.SIGSTOP)
                except ProcessLookupError:
                    pass
                stopped.add(pid)
        self.frozen[index] = sorted(stopped)
        self._save()

    def thaw(self, host):
        """Undoes `freeze`."""
        for pid in self.frozen.pop(self.index(host), []):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self._save()

    def kill_host(self, host, power=True):
        """Ends a host and everything on it. As by a power cut, the others hear nothing of it; with power=False, as by
        a shutdown, their connections are closed."""
        index = self.index(host)
        keeper = self._alive(index)
        if power:
            self.cut(index)
        base.kill_keepers([(keeper, self.name, self.names[index])])
        self.keepers[index] = None
        self.frozen.pop(index, None)
        self._save()

    def start_host(self, host):
        """Brings back a host after `kill_host`: same name, address, keys and link; /tmp is empty."""
        index = self.index(host)
        if self.keepers[index] is not None:
            raise TestbedError(f"{self.names[index]} runs already")
        self.fabric.unplug(index)
        self._boot(index)

    def refuse_ssh(self, host):
        """Ends the sshd of a host: connections are refused. Sessions that are open stay."""
        for pid in base.pids_inside(self._alive(host)):
            if "[listener]" in " ".join(base.command_line(pid)):
                os.kill(pid, signal.SIGKILL)

    def allow_ssh(self, host):
        """Undoes `refuse_ssh`."""
        self.run(host, [shutil.which("sshd", path=base.SEARCH), "-f", self.folder / "etc" / f"sshd.{self.index(host)}"],
                 check=True)

    def hide_file(self, host, path):
        """On this host the file is not there: "No such file or directory". Nothing happens to the file itself."""
        # Mount an overlay over the file's folder and delete the file in its upper layer.
        script = ('set -e; top=$(mktemp -d); mkdir $top/upper $top/work; cd /; '
                  'mount -t overlay overlay -o "lowerdir=$1,upperdir=$top/upper,workdir=$top/work" "$1"; rm "$1/$2"')
        folder, name = os.path.split(os.path.realpath(path))
        self.run(host, ["sh", "-c", script, "sh", folder, name], check=True)

    def show_file(self, host, path):
        """Undoes `hide_file` and `replace_file`, of the file or of others in its folder."""
        path = os.path.realpath(path)
        script = 'umount --lazy "$1" 2>/dev/null || umount --lazy "${1%/*}"'
        self.run(host, ["sh", "-c", script, "sh", path], check=True)

    def replace_file(self, host, path, other):
        """On this host the file has the content of `other`: another build, another version."""
        self.run(host, ["mount", "--bind", os.path.realpath(other), os.path.realpath(path)], check=True)

    # Implementation

    def _alive(self, host):
        keeper = self.keepers[self.index(host)]
        if keeper is None:
            raise TestbedError(f"{self.hostname(host)} is dead: start_host brings it back")
        return keeper

    def _keep(self, role, settings):
        """Starts a first process (keeper.py) and returns its number once its namespaces are made."""
        process = subprocess.Popen(
            [sys.executable, "-I", HERE / "keeper.py", base.PREFIX, self.name, role, str(self._reading),
             json.dumps(settings)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, pass_fds=[self._reading] if self._reading >= 0 else [],
            env=self.environment({"PATH": base.SEARCH}))
        with process:
            lines = process.stdout.read().splitlines()  # ends when the first process lets go of its output
        if len(lines) != 2 or lines[1] != "ready":
            raise TestbedError(f"cannot make {role}: {' '.join(lines) or 'no answer'}")
        return int(lines[0].removeprefix("pid "))

    def _boot(self, index):
        etc = self.folder / "etc"
        self.keepers[index] = self._keep(self.names[index], {
            "hostname": self.names[index], "share": self.share,
            "sshd": shutil.which("sshd", path=base.SEARCH), "sshd_config": str(etc / f"sshd.{index}"),
            "files": {"/etc/hosts": str(etc / "hosts"), "/etc/nsswitch.conf": str(etc / "nsswitch.conf"),
                      "/etc/ssh/ssh_config": str(etc / "ssh_config")}})
        self.fabric.plug(index, self.keepers[index], f"{self.address(index)}/{self.network.prefixlen}")
        self.fabric.shape(index, self.keepers[index], self.shapes[index])
        self._save()

    def _write_names(self, forgotten=frozenset()):
        lines = ["127.0.0.1 localhost"]
        lines += [f"{self.address(i)} {self.names[i]}" for i in range(self.count) if i not in forgotten]
        (self.folder / "etc" / "hosts").write_text("\n".join(lines) + "\n")

    def _write_settings(self):
        """Keys, and the files of /etc that hosts see in place of this machine's."""
        etc = self.folder / "etc"
        etc.mkdir()
        self._write_names()
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C"]
        for index in range(self.count):
            command([*keygen, self.names[index], "-f", etc / f"host_key.{index}"], "making a host key")
            (etc / f"sshd.{index}").write_text(
                f"HostKey {etc}/host_key.{index}\nAuthorizedKeysFile {etc}/key.pub\nPermitRootLogin prohibit-password\n"
                "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\nStrictModes no\n"
                "MaxStartups 200\nPidFile none\nPrintMotd no\n")
        command([*keygen, "testbed", "-f", etc / "key"], "making a key")
        (etc / "known_hosts").write_text("".join(
            f"{self.names[i]},{self.address(i)} {(etc / f'host_key.{i}.pub').read_text()}" for i in range(self.count)))
        (etc / "ssh_config").write_text(
            f"Host *\nUser root\nIdentityFile {etc}/key\nIdentitiesOnly yes\nUserKnownHostsFile {etc}/known_hosts\n"
            "StrictHostKeyChecking yes\nLogLevel ERROR\n")
        # Names are resolved only from /etc/hosts: a missing host is unknown immediately, without a search.
        (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\n")

    def _save(self):
        state = {"size": self.size, "share": self.share, "subnet": str(self.network), "keepers": self.keepers,
                 "fabric": self.fabric.keeper, "frozen": self.frozen,
                 "shapes": [dataclasses.asdict(shape) for shape in self.shapes]}
        new = self.folder / "state.json.new"
        new.write_text(json.dumps(state))
        new.rename(self.folder / "state.json")


if __name__ == "__main__":
    import cli
    cli.main(Cluster)
