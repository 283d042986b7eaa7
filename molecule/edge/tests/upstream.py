"""What stands behind Nginx in these tests: tells what arrived, streams, upgrades to a WebSocket."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", self.headers["Connection"])
            self.end_headers()
            self.wfile.write(self.connection.recv(1024).upper())
            self.close_connection = True
        elif self.path == "/stream":
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
            self.tell()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.tell()

    def tell(self):
        body = json.dumps({"path": self.path, "port": self.client_address[1], "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


# For the monitoring host's part.
threading.Thread(target=ThreadingHTTPServer(("0.0.0.0", 9093), Handler).serve_forever, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
