"""Runs on a real NFS server, NFS-Ganesha on loopback, which is killed and restarted; two clients represent two hosts.

The kernel's NFS client is not needed: fuse-nfs mounts through libnfs, each mount with a connection of its own. If
either program is missing, these trials are skipped:

    Tests/Faults/nfs_deps.sh FOLDER        installs the server and builds fuse-nfs; FUSE_NFS=FOLDER/fuse-nfs
"""

import os
import shutil
import socket
import subprocess
import time

import calls
from lab import ENDLESS, Fault, kill
from trial import Trial

CONFIGURATION = """
NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = {port}; MNT_Port = {mount_port}; Bind_addr = 127.0.0.1;
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}
EXPORT_DEFAULTS {{ Access_Type = RW; Squash = No_Root_Squash; SecType = sys; }}
EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = /export; Protocols = 3; Transports = TCP; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = EVENT; }}
"""
# Seconds for which the server is down: longer than one retry interval of a client, shorter than any timeout of a run.
AWAY = 5
RPCBIND = 111  # TCP port of rpcbind


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_listening(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def await_true(what, condition):
    deadline = time.monotonic() + ENDLESS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited for {what}")
        time.sleep(0.02)


class Server:
    """An NFS server and the mounts of its clients."""

    def __init__(self, lab):
        self.lab = lab
        self.folder = lab.place("nfs")
        self.export = os.path.join(self.folder, "export")
        os.makedirs(self.export)
        self.port, self.mount_port = free_port(), free_port()
        with open(os.path.join(self.folder, "ganesha.conf"), "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(port=self.port, mount_port=self.mount_port, export=self.export))
        self.process = None
        self.mounts = []
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["ganesha.nfsd", "-F", "-f", f"{self.folder}/ganesha.conf", "-L", f"{self.folder}/ganesha.log", "-p",
             f"{self.folder}/ganesha.pid"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.await_true("the server to listen", lambda: is_listening(self.port) and is_listening(self.mount_port))

    def stop(self):
        """Kills the server, as a power failure would."""
        kill(self.process.pid)
        self.process.wait()

    def mount(self):
        """Mounts another client, as on another host."""
        path = f"{self.folder}/client-{len(self.mounts)}"
        os.makedirs(path)
        address = f"nfs://127.0.0.1{self.export}?version=3&nfsport={self.port}&mountport={self.mount_port}"
        subprocess.run([program(), "-n", address, "-m", path], check=True, stdout=subprocess.DEVNULL)
        self.mounts.append(path)
        with self.lab.lock:
            self.lab.mounts.append(path)
        self.await_true("the mount", lambda: os.path.ismount(path))
        return path

    def await_true(self, what, condition):
        try:
            await_true(what, lambda: condition() or self.process.poll() is not None)
            if self.process.poll() is None:
                return
        except TimeoutError:
            pass
        with open(f"{self.folder}/ganesha.log", encoding="utf-8", errors="replace") as file:
            raise RuntimeError(f"waited for {what}: {file.read()[-2000:]}")

    def close(self):
        for path in self.mounts:
            subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
            with self.lab.lock:
                self.lab.mounts.remove(path)
        self.stop()


def program():
    return os.environ.get("FUSE_NFS") or shutil.which("fuse-nfs")


def tasks(lab, options):
    del options
    if not program() or not shutil.which("ganesha.nfsd") or not shutil.which("rpcbind") or os.geteuid() != 0:
        return [lambda: skipped(lab)]
    # Run sequentially, since rpcbind can register only one server at a time.
    return [lambda: one_after_the_other(lab)]


def one_after_the_other(lab):
    save = calls.second_save(lab.reference(2).job, "0")
    # The server is down when a file is created, written and synced, and when the checkpoint is renamed to its final
    # name.
    waiting = [next(call for call in save if call.name == name) for name in ("open", "write", "fsync")]
    waiting.append(next(call for call in save if call.commits is not None))
    bodies = [two_clients, killed_without_a_server] + [
        lambda lab, server, call=call: restarted(lab, server, call) for call in waiting]
    binder = None
    if not is_listening(RPCBIND):
        os.makedirs("/run/rpcbind", exist_ok=True)
        binder = subprocess.Popen(["rpcbind", "-f", "-w"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_true("rpcbind", lambda: is_listening(RPCBIND))
        return [outcome for body in bodies for outcome in on_a_server(lab, body)]
    finally:
        if binder:
            binder.kill()
            binder.wait()


def skipped(lab):
    trial = Trial(lab, "NFS", "", 0)
    trial.result.skipped = "no NFS-Ganesha or no fuse-nfs (Tests/Faults/nfs_deps.sh), or not root"
    return [trial.done()]


def on_a_server(lab, body):
    server = Server(lab)
    try:
        return [body(lab, server)]
    finally:
        server.close()


def restarted(lab, server, call):
    """The call waits until the server has been killed, so that the server is down when it is made; then the server is
    restarted."""
    trial = Trial(lab, "NFS: server restarted", str(call), 2, place=f"{server.mount()}/run", keep_last=1000)
    gone = lab.place("gone")
    job = trial.start(call.fault("wait", "0", until=gone))
    while not job.hits("0") and job.process.poll() is None:
        time.sleep(0.02)
    trial.reached(job, "0")
    server.stop()
    with open(gone, "wb"):
        pass
    time.sleep(AWAY)
    server.start()
    ending = trial.end(job)
    trial.result.injected += 1
    trial.expect(ending.code == 0, f"ended with {ending.label}: {ending.tail()}")
    trial.compare()
    return trial.done()


def two_clients(lab, server):
    """A run in use on another client is rejected; when that one has been killed, it continues here."""
    first, second = server.mount(), server.mount()
    trial = Trial(lab, "NFS: lock and resume", "two clients", 2, place=f"{first}/run", keep_last=1000)
    save = calls.second_save(trial.reference.job, "1")[2]
    job = trial.start(save.fault("wait", "1", until=lab.place("never")))
    while not job.hits("1") and job.process.poll() is None:
        time.sleep(0.02)
    trial.reached(job, "1")
    elsewhere = Trial(lab, "", "", 2, place=f"{second}/run", keep_last=1000)
    refused = elsewhere.wait(elsewhere.start())
    trial.result.injected += 1
    trial.expect(refused.code == 2 and "is in use by another run" in refused.text,
                 f"ended with {refused.label}, expected 2: {refused.tail()}")
    # A restart of the server does not release the lock.
    server.stop()
    server.start()
    refused = elsewhere.wait(elsewhere.start())
    trial.expect(refused.code == 2 and "is in use by another run" in refused.text,
                 f"after a restart of the server: ended with {refused.label}, expected 2: {refused.tail()}")
    job.kill_all()
    trial.end(job)
    trial.result.kills += 1
    trial.result.problems += elsewhere.result.problems
    elsewhere.committed = set(trial.committed)
    ending = elsewhere.finish()
    trial.result.restarts += 1
    trial.expect("step-00000002, step 2" in ending.text, f"not resumed from step 2: {ending.tail(20)}")
    trial.result.problems += elsewhere.result.problems
    trial.compare()
    return trial.done()


def killed_without_a_server(lab, server):
    """Server and run are killed during a save; after a restart of the server, the run continues on another client."""
    first = server.mount()
    trial = Trial(lab, "NFS: server and run killed", "", 2, place=f"{first}/run", keep_last=1000)
    job = trial.start(Fault("wait", "fsync", ".partial-00000004-*/manifest.json*", until=lab.place("never")))
    while not job.hits("0") and job.process.poll() is None:
        time.sleep(0.02)
    trial.reached(job, "0")
    server.stop()
    job.kill_all()
    trial.wait(job)
    trial.result.kills += 1
    subprocess.run(["umount", "-l", first], check=False)
    server.start()
    again = Trial(lab, "", "", 2, place=f"{server.mount()}/run", keep_last=1000)
    again.committed = {2}
    ending = again.finish()
    trial.result.restarts += 1
    trial.result.problems += again.result.problems
    trial.result.is_equal = again.result.is_equal
    trial.expect("step-00000002, step 2" in ending.text, f"not resumed from step 2: {ending.tail(20)}")
    return trial.done()
