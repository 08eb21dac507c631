"""A socket whose process has gone, in another's hands: argv = socket path, "early" or "late".

The child connects, hands the connection to its parent and ends: before it asks for anything ("early"), or once it has its
first SVID ("late"). The parent then prints what comes over the connection: "served" or "closed"."""
import os
import socket
import struct
import sys


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = b"".join(
    header(*pair)
    for pair in [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/SpiffeWorkloadAPI/FetchX509SVID"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"workload.spiffe.io", b"true"),
    ]
)
REQUEST = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(4, 0, 0, b"")
    + frame(1, 4, 1, HEADERS)
    + frame(0, 1, 1, b"\0\0\0\0\0")
)


def read_until(connection, part):
    """True once `part` came, False when the connection or its stream (trailers end it) ended before."""
    seen = b""
    while True:
        data = connection.recv(65536)
        seen += data
        while len(seen) >= 9:
            length = int.from_bytes(seen[:3], "big")
            if len(seen) < 9 + length:
                break
            kind, flags, payload = seen[3], seen[4], seen[9 : 9 + length]
            seen = seen[9 + length :]
            if kind == 0 and part in payload:
                return True
            if kind in (0, 1) and flags & 1 or kind in (3, 7):
                return False
        if not data:
            return False


path, when = sys.argv[1:]
ours, theirs = socket.socketpair()
if os.fork() == 0:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    if when == "late":
        connection.sendall(REQUEST)
        assert read_until(connection, b"spiffe://")
    socket.send_fds(theirs, [b"x"], [connection.fileno()])
    os._exit(0)
_, fds, _, _ = socket.recv_fds(ours, 1, 1)
os.wait()
connection = socket.socket(fileno=fds[0])
print("orphaned", flush=True)
try:
    if when == "early":
        sys.stdin.readline()
        connection.sendall(REQUEST)
    print("served" if read_until(connection, b"spiffe://") else "closed", flush=True)
except OSError:
    print("closed", flush=True)
