"""Stands in for Grafana: reads its configuration as Grafana does, and answers where that says."""

import configparser
import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = "@VERSION@"


def read(path):
    config = configparser.ConfigParser(interpolation=None)
    config.read(path)
    return {name: {key: expanded(value) for key, value in config[name].items()} for name in config.sections()}


def expanded(value):
    """$__file{path} is the file's text."""
    return re.sub(r"\$__file\{(.*?)\}", lambda found: Path(found[1]).read_text(), value)


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path == "/api/health"
        body = json.dumps({"database": "ok", "version": VERSION}).encode() if found else b"nothing here"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(body)


CONFIG = read(os.environ["CONF_FILE"])
Path("/var/lib/grafana/seen.json").write_text(json.dumps(CONFIG))
server = CONFIG["server"]
print("listening", server["http_addr"], server["http_port"], file=sys.stderr)
ThreadingHTTPServer((server["http_addr"], int(server["http_port"])), Health).serve_forever()
