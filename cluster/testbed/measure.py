#!/usr/bin/env python3
"""What the network between two hosts is like, by plain sockets: nothing to install, nothing of MPI in the figures.

    measure.py serve PORT                    answers, until killed
    measure.py round-trip ADDRESS PORT       microseconds, median of 40 one-byte messages over TCP
    measure.py throughput ADDRESS PORT S     Mbit/s of payload over TCP, in S seconds after one to start up
    measure.py loss ADDRESS PORT             percent of 4,000 datagrams that never arrived

As a library: `round_trip_us(cluster, 0, 1)`, `throughput_mbit(cluster, 0, 1)`, `loss_percent(cluster, 0, 1)`.
"""

import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

PORT = 7077
CHUNK = bytes(1 << 18)
DATAGRAMS = 4000


def answer(connection):
    """Sends back what a round trip sends; swallows a throughput test and reports its bytes as time goes by."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind = connection.recv(1)
        if kind == b"e":
            while byte := connection.recv(1):
                connection.sendall(byte)
        elif kind == b"t":
            buffer, total, last = bytearray(1 << 20), 0, 0.0
            while count := connection.recv_into(buffer):
                total += count
                if time.monotonic() - last > 0.05:
                    last = time.monotonic()
                    connection.sendall(struct.pack("!dq", last, total))
    except ConnectionError:
        pass  # a throughput test hangs up in the middle
    finally:
        connection.close()


def count_datagrams(port):
    """Says, asked by a datagram of one byte, how many others came since it was last asked."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    receiver.bind(("", port))
    count = 0
    while True:
        data, sender = receiver.recvfrom(2048)
        if len(data) > 1:
            count += 1
        else:
            receiver.sendto(struct.pack("!q", count), sender)
            count = 0


def serve(port):
    listener = socket.create_server(("", port), backlog=16)
    threading.Thread(target=count_datagrams, args=(port,), daemon=True).start()
    print("ready", flush=True)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def round_trip(address, port):
    with socket.create_connection((address, port), timeout=20) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(b"e")
        times = []
        for _ in range(40):
            start = time.perf_counter()
            s.sendall(b"x")
            s.recv(1)
            times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def throughput(address, port, seconds):
    """By the receiver's clock and count: what sits in a buffer on the way is not counted."""
    with socket.create_connection((address, port), timeout=20) as s:
        s.sendall(b"t")
        reports = []

        def listen():
            while report := s.recv(16, socket.MSG_WAITALL):
                reports.append(struct.unpack("!dq", report))

        listener = threading.Thread(target=listen)
        listener.start()
        end = time.monotonic() + 1 + seconds
        while time.monotonic() < end:
            s.sendall(CHUNK)
        # Data in flight would take long on a slow link; the reports so far are sufficient.
        s.shutdown(socket.SHUT_RDWR)
        listener.join()
    if len(reports) < 10:
        sys.exit(f"measure: only {len(reports)} reports from {address} in {seconds:g} s: no throughput")
    start = reports[0][0] + min(1, (reports[-1][0] - reports[0][0]) / 2)
    first = next(report for report in reports if report[0] > start)
    return (reports[-1][1] - first[1]) * 8 / (reports[-1][0] - first[0]) / 1e6


def loss(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((address, port))
        s.settimeout(1)
        for i in range(DATAGRAMS):
            s.send(b"xx")
            if i % 20 == 0:
                time.sleep(0.002)  # no queue on the way overflows
        time.sleep(0.3)
        for _ in range(20):  # question or answer may be lost too; a lost answer would zero the count
            s.send(b"?")
            try:
                arrived = struct.unpack("!q", s.recv(8))[0]
            except TimeoutError:
                continue
            return 100 * (1 - arrived / DATAGRAMS)
    sys.exit(f"measure: no answer from {address}")


@contextmanager
def server(cluster, host):
    process = cluster.spawn(host, [sys.executable, __file__, "serve", str(PORT)], cwd="/", stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(cluster, a, b, what, *arguments):
    with server(cluster, b):
        done = cluster.run(a, [sys.executable, __file__, what, cluster.address(b), str(PORT), *map(str, arguments)],
                           cwd="/", timeout=120, check=True)
    return float(done.stdout)


def round_trip_us(cluster, a, b):
    """Microseconds from host a to host b and back."""
    return ask(cluster, a, b, "round-trip")


def throughput_mbit(cluster, a, b, seconds=2):
    """Mbit/s of payload from host a to host b; on Ethernet 95 % of what the link carries."""
    return ask(cluster, a, b, "throughput", seconds)


def loss_percent(cluster, a, b):
    """Percent of datagrams lost from host a to host b."""
    return ask(cluster, a, b, "loss")


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "serve":
        serve(int(rest[0]))
    else:
        measures = {"round-trip": round_trip, "throughput": throughput, "loss": loss}
        print(measures[kind](rest[0], int(rest[1]), *map(float, rest[2:])))
