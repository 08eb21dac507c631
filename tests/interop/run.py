#!/usr/bin/env python3
"""Real clients in four languages against one server and agent. See README.md.

    run.py BIN_DIR CLIENTS_DIR [PATIENCE]

BIN_DIR holds spire-server and spire-agent (ours or SPIRE's), CLIENTS_DIR what build.sh made. PATIENCE is how many seconds
the first fetch may be refused with "no identity issued": 0 for ours, 15 for SPIRE, whose agents poll.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

LANGUAGES = {"go": 61001, "java": 61002, "python": 61003, "rust": 61004}
TRUST_DOMAIN = "interop.test"
TTL = 60

SERVER_CONF = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{dir}/server.sock"
  trust_domain = "interop.test"
  data_dir = "{dir}/server"
  log_level = "INFO"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{dir}/server/datastore.sqlite3" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""
AGENT_CONF = """
agent {{
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{dir}/agent/public/api.sock"
  trust_domain = "interop.test"
  data_dir = "{dir}/agent"
  log_level = "INFO"
  trust_bundle_path = "{dir}/bundle.pem"
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


class Failed(Exception):
    pass


class Deployment:
    """One server, one agent, one entry for each language."""

    def __init__(self, bin_dir, clients):
        self.bin, self.clients = bin_dir, clients
        self.dir = tempfile.mkdtemp(prefix="interop", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.processes = []

    def server(self, *args):
        command = [f"{self.bin}/spire-server", *args, "-socketPath", f"{self.dir}/server.sock"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise Failed(f"{' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def daemon(self, name, *args):
        log = open(f"{self.dir}/{name}.log", "wb")
        process = subprocess.Popen([f"{self.bin}/{name}", "run", *args], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def wait_healthy(self, name, socket, process):
        end = time.monotonic() + 30
        while time.monotonic() < end and process.poll() is None:
            if subprocess.run([f"{self.bin}/{name}", "healthcheck", "-socketPath", socket], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise Failed(f"{name} is not healthy; its log:\n" + open(f"{self.dir}/{name}.log").read()[-3000:])

    def start(self):
        for name in ("server", "agent", "agent/public"):
            os.mkdir(f"{self.dir}/{name}")
        # The users that the clients run as may not be able to look into the folder they were built in.
        private, self.clients = self.clients, f"{self.dir}/clients"
        shutil.copytree(private, self.clients, symlinks=True, ignore=shutil.ignore_patterns("target", "classes", "maven-*"))
        port = 20000 + os.getpid() % 20000
        for name, text in (("server.conf", SERVER_CONF), ("agent.conf", AGENT_CONF)):
            with open(f"{self.dir}/{name}", "w") as file:
                file.write(text.format(dir=self.dir, port=port))
        process = self.daemon("spire-server", "-config", f"{self.dir}/server.conf")
        self.wait_healthy("spire-server", f"{self.dir}/server.sock", process)
        with open(f"{self.dir}/bundle.pem", "w") as file:
            file.write(self.server("bundle", "show"))
        node = f"spiffe://{TRUST_DOMAIN}/node"
        token = self.server("token", "generate", "-spiffeID", node).split()[1]
        for language, uid in LANGUAGES.items():
            self.server("entry", "create", "-spiffeID", self.id(language), "-parentID", node, "-selector", f"unix:uid:{uid}", "-x509SVIDTTL", str(TTL))
        self.socket = f"{self.dir}/agent/public/api.sock"
        process = self.daemon("spire-agent", "-config", f"{self.dir}/agent.conf", "-joinToken", token)
        self.wait_healthy("spire-agent", self.socket, process)

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def id(self, language):
        return f"spiffe://{TRUST_DOMAIN}/{language}"

    def command(self, language):
        clients = self.clients
        return {
            "go": [f"{clients}/go/client"],
            "java": ["java", "-cp", f"{clients}/java/interop-java-0.jar:{clients}/java/lib/*", "interop.Client"],
            "python": [f"{clients}/python/bin/python", f"{clients}/python/client.py"],
            "rust": [f"{clients}/rust/client"],
        }[language]

    def spawn(self, language, *args):
        environment = {"PATH": os.environ["PATH"], "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.socket}", "HOME": "/tmp"}
        if "JAVA_HOME" in os.environ:
            environment["JAVA_HOME"] = os.environ["JAVA_HOME"]
        uid = LANGUAGES[language]
        return subprocess.Popen(
            [*self.command(language), *args], env=environment, cwd="/tmp", user=uid, group=uid, extra_groups=[],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )

    def run(self, language, *args, timeout=60):
        process = self.spawn(language, *args)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise Failed(f"{language} {args[0]}: no end after {timeout} s; printed {out!r} {err[-1500:]!r}") from None
        if process.returncode:
            raise Failed(f"{language} {args[0]}: exit {process.returncode}: {err[-2500:]}")
        return out


def svid(line):
    return json.loads(line)


class Suite:
    def __init__(self, deployment, patience):
        self.d, self.patience, self.passed, self.failures = deployment, patience, 0, []
        self.lock = threading.Lock()

    def check(self, name, test):
        begin = time.monotonic()
        try:
            test()
        except Exception as err:  # every failure is one line of the result
            with self.lock:
                self.failures.append(name)
            print(f"FAIL {name}: {err}", flush=True)
        else:
            with self.lock:
                self.passed += 1
            print(f"ok   {name} ({time.monotonic() - begin:.1f} s)", flush=True)

    def expect(self, got, want):
        if got != want:
            raise Failed(f"got {got!r}, want {want!r}")

    def fetch(self, language):
        end = time.monotonic() + self.patience
        while True:
            try:
                got = svid(self.d.run(language, "fetch"))
                break
            except Failed:
                if time.monotonic() > end:
                    raise
        self.expect(got["id"], self.d.id(language))
        if not 0 < got["not_after"] - time.time() <= TTL + 1:
            raise Failed(f"the SVID does not live {TTL} s: {got}")

    def watch(self, language):
        lines = [svid(line) for line in self.d.run(language, "watch", "2", timeout=150).splitlines()]
        self.expect([line["id"] for line in lines], [self.d.id(language)] * 2)
        first, second = lines
        if first["serial"] == second["serial"] or second["not_after"] <= first["not_after"]:
            raise Failed(f"no rotation: {lines}")

    def mtls(self, servers, client, server):
        answer = self.d.run(client, "connect", servers[server], self.d.id(server)).strip()
        self.expect(answer, self.d.id(client))

    def refuse(self, servers, client, server):
        """A client that expects another identity than the server has must not talk to it."""
        try:
            answer = self.d.run(client, "connect", servers[server], f"spiffe://{TRUST_DOMAIN}/somebody-else").strip()
        except Failed:
            return
        raise Failed(f"{client} talked to the wrong server: {answer}")

    def run(self):
        for language in LANGUAGES:
            self.check(f"{language} fetches", lambda l=language: self.fetch(l))
        watches = [threading.Thread(target=self.check, args=(f"{l} watches through a rotation", lambda l=l: self.watch(l))) for l in LANGUAGES]
        for thread in watches:
            thread.start()
        running = {language: self.d.spawn(language, "serve") for language in LANGUAGES}
        try:
            servers = {language: process.stdout.readline().strip() for language, process in running.items()}
            for server in LANGUAGES:
                for client in LANGUAGES:
                    self.check(f"mTLS {client} -> {server}", lambda c=client, s=server: self.mtls(servers, c, s))
            for client, server in zip(LANGUAGES, list(LANGUAGES)[1:] + list(LANGUAGES)[:1]):
                self.check(f"mTLS {client} refuses a wrong {server}", lambda c=client, s=server: self.refuse(servers, c, s))
        finally:
            for process in running.values():
                process.kill()
                process.communicate()
        tokens = {}
        for language in LANGUAGES:
            self.check(f"{language} fetches a JWT-SVID", lambda l=language: tokens.update({l: self.d.run(l, "jwt", "interop").strip()}))
        for issuer, token in tokens.items():
            for validator in LANGUAGES:
                self.check(f"JWT-SVID of {issuer} validated by {validator}", lambda i=issuer, t=token, v=validator: self.expect(self.d.run(v, "validate", "interop", t).strip(), self.d.id(i)))
        for language, token in tokens.items():
            self.check(f"JWT-SVID validated by the agent for {language}", lambda l=language, t=token: self.expect(self.d.run(l, "agent-validate", "interop", t).strip(), self.d.id(l)))
        for thread in watches:
            thread.join()
        print(f"{self.passed} passed, {len(self.failures)} failed", flush=True)
        return not self.failures


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    if os.getuid() != 0:
        sys.exit("each client runs as a user of its own: run this as root or with sudo")
    deployment = Deployment(*map(os.path.abspath, sys.argv[1:3]))
    try:
        deployment.start()
        good = Suite(deployment, float((sys.argv[3:] or [0])[0])).run()
        if not good:
            for name in ("spire-server", "spire-agent"):
                print(f"--- {name}\n" + open(f"{deployment.dir}/{name}.log").read()[-4000:])
    finally:
        deployment.stop()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
