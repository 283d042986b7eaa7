"""Shows one figure on each port that is given, as the service and the balancer do: figures.py ADDRESS PORT..."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Figures(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/metrics" else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"stand_in_port %d\n" % self.server.server_port)


for port in sys.argv[2:]:
    Thread(target=ThreadingHTTPServer((sys.argv[1], int(port)), Figures).serve_forever).start()
