"""Asks for X509-SVIDs on connections of a process that all the while calls exec, from one program to the other.

exec_loop.py SOCKET ONE TWO TRIES

ONE and TWO are shells. Prints one line of JSON: how often the answer was /one, /two, /mixed-…, or none."""

import json
import os
import random
import signal
import socket
import sys
import tempfile
import time

import pid_reuse

LOOP = 'if [ "$TURN" = 1 ]; then TURN=2; export TURN; exec "$TWO" "$LOOP"; else TURN=1; export TURN; exec "$ONE" "$LOOP"; fi\n'


def main():
    path, one, two, tries = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    tally = {"one": 0, "two": 0, "mixed": 0, "none": 0}
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as loop:
        loop.write(LOOP)
        loop.flush()
        asked = 0
        # Until both have been seen, so far as that takes.
        while asked < tries or (asked < 20 * tries and not (tally["one"] and tally["two"])):
            asked += 1
            connection = socket.socket(socket.AF_UNIX)

            def turn():
                connection.connect(path)
                os.execve(one, [one, loop.name], {"ONE": one, "TWO": two, "LOOP": loop.name, "TURN": "1"})

            child = pid_reuse.spawn(turn)
            # Connected means known; until then it is this program.
            while not connected(connection) or not running(child, (one, two)):
                time.sleep(0.0005)
            time.sleep(random.uniform(0, 0.005))
            try:
                connection.sendall(pid_reuse.request())
                got = pid_reuse.answer(connection, time.monotonic() + 60)
            except ConnectionError:
                got = b""
            if b"org/mixed" in got:
                tally["mixed"] += 1
            elif b"org/one" in got:
                tally["one"] += 1
            elif b"org/two" in got:
                tally["two"] += 1
            else:
                tally["none"] += 1
            connection.close()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    print(json.dumps(tally))


def running(pid, programs):
    return os.readlink("/proc/%d/exe" % pid) in programs


def connected(connection):
    try:
        connection.getpeername()
        return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
