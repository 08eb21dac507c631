"""One fresh server and agent on SQLite in a scratch directory, and how its sockets are named on a command line."""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{dir}/server.sock"
  trust_domain = "example.org"
  data_dir = "{dir}/server"
  log_level = "WARN"
  ca_ttl = "48h"
  ratelimit {{ attestation = false signing = false }}
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{dir}/server/datastore.sqlite3" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ keys_path = "{dir}/server/keys.json" }} }}
}}
"""
AGENT = """
agent {{
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{dir}/pub/agent.sock"
  admin_socket_path = "{dir}/adm/admin.sock"
  trust_domain = "example.org"
  data_dir = "{dir}/agent"
  log_level = "WARN"
  trust_bundle_path = "{dir}/bundle.crt"
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""
# The first word of a step's command line: which program, and which socket goes after the verbs.
KINDS = {
    "server": ("spire-server", "server.sock"),
    "agent": ("spire-agent", "pub/agent.sock"),
    "admin": ("spire-agent", "adm/admin.sock"),
    "bare-server": ("spire-server", None),
    "bare-agent": ("spire-agent", None),
}
HEALTHY_WITHIN, STOPPED_WITHIN = 60, 15


class Playground:
    def __init__(self, directory, binaries):
        self.dir, self.binaries = directory, binaries
        self.work = pathlib.Path(directory, "w")
        self.processes, self.words = [], {}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        for name in ("server", "agent", "pub", "adm", "w"):
            pathlib.Path(self.dir, name).mkdir()
        port = free_port()
        for name, text in (("server", SERVER), ("agent", AGENT)):
            pathlib.Path(self.dir, f"{name}.conf").write_text(text.format(dir=self.dir, port=port))
        self.daemon("spire-server", ["-config", f"{self.dir}/server.conf"], ["server", "healthcheck"])
        pathlib.Path(self.dir, "bundle.crt").write_text(self.ask(["server", "bundle", "show"], 2))
        token = self.ask(["server", "token", "generate", "-spiffeID", "spiffe://example.org/node1"], 2).split()[1]
        self.daemon("spire-agent", ["-config", f"{self.dir}/agent.conf", "-joinToken", token], ["agent", "healthcheck"])
        self.words = {
            "d": self.dir,
            "agent": f"spiffe://example.org/spire/agent/join_token/{token}",
            "uid": str(os.getuid()),
            "tok": token,
        }

    def daemon(self, program, args, health):
        log = pathlib.Path(self.dir, f"{program}.log")
        with log.open("ab") as out:
            process = subprocess.Popen(
                [self.binaries / program, "run", *args], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        self.processes.append(process)
        probe, end = self.command(self.binaries, health, 1), time.monotonic() + HEALTHY_WITHIN
        while subprocess.run(probe, capture_output=True).returncode != 0:
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{program} is not healthy; its log ends with:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)

    def ask(self, argv, verbs):
        command = self.command(self.binaries, argv, verbs)
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def command(self, binaries, argv, verbs):
        """The socket flag goes between the verbs (`entry create`) and the step's own flags."""
        program, sock = KINDS[argv[0]]
        where = ["-socketPath", f"{self.dir}/{sock}"] if sock else []
        return [str(binaries / program), *argv[1 : 1 + verbs], *where, *argv[1 + verbs :]]

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOPPED_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port():
    """A five-digit port: blur.py replaces `:ddddd`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
