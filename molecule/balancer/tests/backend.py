"""A slot's instance, without the service: says who it is, streams, and can die in the middle of a request."""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
hits = 0
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for number in range(4):
                self.wfile.write(f"data: {number}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.5)
            self.close_connection = True
        else:
            self.answer(str(hits) if self.path == "/hits" else NAME)

    def do_POST(self):
        global hits
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with lock:
            hits += 1
        if self.path == "/die":
            self.close_connection = True
        else:
            self.answer(NAME)

    def log_message(self, *_arguments):
        pass


ThreadingHTTPServer((ADDRESS, PORT), Handler).serve_forever()
