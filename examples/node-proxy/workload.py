"""A workload that knows nothing of TLS or SPIFFE: it answers plain HTTP on 127.0.0.1:8080 of its own network namespace and
asks its neighbours by plain HTTP all the time. One line for each answer; the answer says who Envoy found at the other end.

workload.py NAME URL …"""

import http.server
import sys
import threading
import time
import urllib.error
import urllib.request

NAME, URLS = sys.argv[1], sys.argv[2:]


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{NAME} answers {self.headers.get('x-forwarded-client-cert')}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Answer).serve_forever, daemon=True).start()
while True:
    for url in URLS:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                print(url, answer.status, answer.read().decode(), flush=True)
        except urllib.error.HTTPError as error:
            print(url, error.code, error.read().decode(), flush=True)
        except OSError as error:
            print(url, "failed", error, flush=True)
    time.sleep(0.1)
