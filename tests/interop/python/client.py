"""A workload that uses py-spiffe. The commands are the same for all languages: see ../README.md."""

import json
import os
import sys
import threading

from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier
from spiffe import JwtSource, JwtSvid, SpiffeId, WorkloadApiClient, X509Source
from spiffetls.dial import dial
from spiffetls.listen import ListenOptions, listen
from spiffetls.mode import ServerTlsMode
from spiffetls.tlsconfig.authorize import authorize_any, authorize_id


def show(svid):
    leaf = svid.leaf
    print(json.dumps({"id": str(svid.spiffe_id), "serial": str(leaf.serial_number), "not_after": int(leaf.not_valid_after_utc.timestamp())}), flush=True)


def fetch():
    with WorkloadApiClient() as client:
        show(client.fetch_x509_svid())


def watch(n):
    done, seen, failed = threading.Event(), set(), []

    def updated(context):
        svid = context.default_svid
        if svid.leaf.serial_number not in seen and len(seen) < int(n):
            seen.add(svid.leaf.serial_number)
            show(svid)
            if len(seen) == int(n):
                done.set()

    def error(err):
        failed.append(err)
        done.set()

    with WorkloadApiClient() as client:
        handler = client.stream_x509_contexts(updated, error)
        ended = done.wait(240)
        handler.cancel()
    if failed or not ended:
        sys.exit(f"python: watch: {failed or 'no rotation in time'}")


def peer_id(certificate):
    sans = certificate.to_cryptography().extensions.get_extension_for_class(SubjectAlternativeName).value
    return sans.get_values_for_type(UniformResourceIdentifier)[0]


def serve():
    with X509Source(timeout_in_seconds=30) as source:
        server = listen("127.0.0.1:0", source, ListenOptions(tls_mode=ServerTlsMode.MTLS, authorize_fn=authorize_any()))
        host, port = server.getsockname()
        print(f"{host}:{port}", flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        while True:
            connection, _ = server.accept()
            try:
                connection.do_handshake()
                while not connection.recv(1024).endswith(b"\n"):
                    pass
                connection.sendall(f"{peer_id(connection.get_peer_certificate())}\n".encode())
                connection.shutdown()
            except Exception as err:  # one caller's failure is not the server's
                print(f"python: serve: {err!r}", file=sys.stderr, flush=True)
            finally:
                connection.close()


def connect(address, server):
    with X509Source(timeout_in_seconds=30) as source:
        connection = dial(address, source, authorize_fn=authorize_id(SpiffeId(server)))
        connection.sendall(b"who am I\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += connection.recv(1024)
        print(answer.decode(), end="")
        connection.close()


def jwt(audience):
    with WorkloadApiClient() as client:
        print(client.fetch_jwt_svid({audience}).token)


def validate(audience, token):
    with JwtSource(timeout_in_seconds=30) as source:
        unchecked = JwtSvid.parse_insecure(token, {audience})
        bundle = source.get_bundle_for_trust_domain(unchecked.spiffe_id.trust_domain)
        print(JwtSvid.parse_and_validate(token, bundle, {audience}).spiffe_id)


def agent_validate(audience, token):
    with WorkloadApiClient() as client:
        print(client.validate_jwt_svid(token, audience).spiffe_id)


COMMANDS = {"fetch": fetch, "watch": watch, "serve": serve, "connect": connect, "jwt": jwt, "validate": validate, "agent-validate": agent_validate}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
