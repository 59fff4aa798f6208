#!/usr/bin/env python3
"""Attacks the watcher port of a rank, on loopback only: idle connections, floods and guesses, also while the rank has no
free file descriptors. Prints the reason and exits with 1 if the rank does not withstand them.

    strangers.py PROCESS
"""

import glob
import os
import re
import resource
import socket
import sys
import time

LISTENS = "0A"  # state of /proc/net/tcp


def listening(pid):
    """(address, port) of the sockets on which a process listens, of a job on one host."""
    inodes = set()
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            match = re.match(r"socket:\[(\d+)\]", os.readlink(path))
        except FileNotFoundError:
            continue  # closed meanwhile
        if match:
            inodes.add(match[1])
    found = []
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
        for fields in map(str.split, list(table)[1:]):
            if fields[3] == LISTENS and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.append((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found


def expect(is_true, text):
    if not is_true:
        raise SystemExit(f"strangers: {text}")


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    return connection


def everything_from(connection):
    """The bytes received until the connection is closed; None if it stays open."""
    received = b""
    try:
        while chunk := connection.recv(4096):
            received += chunk
    except TimeoutError:
        return None
    except ConnectionResetError:
        pass
    return received


def idle(port, count):
    """Silent connections receive nothing and are closed."""
    held = [connect(port) for _ in range(count)]
    for connection in (held[0], held[count // 2], held[-1]):
        received = everything_from(connection)
        expect(received is not None, "an idle connection stays open")
        expect(received == b"", f"an idle connection was sent {len(received)} bytes")
    for connection in held:
        connection.close()


def flood(port, byte):
    connection = connect(port)
    try:
        for _ in range(256):
            connection.sendall(byte * 4096)
    except (BrokenPipeError, ConnectionResetError):
        pass
    received = everything_from(connection)
    expect(received is not None, f"a flood of {byte!r} is listened to")
    expect(received == b"", f"a flood of {byte!r} was answered with {len(received)} bytes")
    connection.close()


def guess(port):
    """A valid hello without the secret receives only a challenge."""
    connection = connect(port)
    connection.sendall(b"DTwatch1" + (1).to_bytes(4, "big") + bytes(32))
    connection.sendall(bytes(32) + b'{"end":true}\n')
    received = everything_from(connection)
    expect(received is not None and len(received) <= 64, "a wrong proof was listened to")
    connection.close()


def cpu_seconds(pid, name):
    """The CPU time of the threads with this name."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/stat"):
        with open(path, encoding="ascii") as file:
            head, _, rest = file.read().rpartition(")")
        if head.endswith("(" + name):
            fields = rest.split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def without_descriptors(pid, port):
    """The rank has no free file descriptors: its watcher does not spin, and continues when it has some."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    open_now = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now, limits[1]))
    try:
        held = [connect(port) for _ in range(40)]
        before, began = cpu_seconds(pid, "watch post"), time.monotonic()
        time.sleep(3)
        share = (cpu_seconds(pid, "watch post") - before) / (time.monotonic() - began)
        expect(share < 0.2, f"without file descriptors the watcher takes {share:.0%} of a core")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    for connection in held:
        connection.close()


def main():
    pid = int(sys.argv[1])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    mine = [port for address, port in listening(pid) if address == "127.0.0.1"]
    expect(len(mine) == 1, f"the watcher does not listen on loopback alone: {listening(pid)}")
    port = mine[0]
    idle(port, 2000)
    for byte in (b"\n", b"{", b"\0"):
        flood(port, byte)
    guess(port)
    without_descriptors(pid, port)
    idle(port, 20)
    print("strangers: nothing found")


if __name__ == "__main__":
    main()
