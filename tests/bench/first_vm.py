"""From a bare VM to an answer over HTTPS that an authority's root verifies: the minutes, and the commands typed."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from common import MODEL_PORT, lab, row_of, table
from support.model import model_server
from support.newcomer import KINDS, arrival

KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def run() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agentfleet-bench-"))
    network = os.environ.get("LAB_NETWORK", "10.85.0.0/24")
    url = f"http://{network.rpartition('.')[0]}.1:{MODEL_PORT}"
    table("one bare VM", "seconds")
    # Its own hosts are not needed, only the network; one of them makes it.
    with (
        lab("first", network, agent_model_key=KEY, agent_model_url=url, lab_only=["edge1"]) as fleet,
        model_server(f"{fleet.prefix}.1", MODEL_PORT, KEY, directory / "model.log"),
        arrival(fleet, KINDS["one"], directory) as newcomer,
    ):
        began = time.monotonic()
        seconds = {}
        for what, act in (
            ("`init.yml`, typed by a program", newcomer.begin),
            ("`site.yml`, with a certificate by ACME", lambda: newcomer.play("site").ok()),
            ("`deploy.yml`", lambda: newcomer.play("deploy").ok()),
        ):
            before = time.monotonic()
            act()
            seconds[what] = time.monotonic() - before
        with newcomer.client() as client:
            newcomer.chat(client).raise_for_status()
        whole = time.monotonic() - began
    for what, took in seconds.items():
        row_of(what, f"{took:.0f}")
    row_of(f"to a verified answer, {len(seconds)} commands", f"{whole:.0f}")
