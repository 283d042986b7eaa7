"""lanes.py OPTIONS: the fleet tests as two pytests at a time, each with a lab of its own.

A fleet test mostly waits for one host or another, so that one alone leaves half of two cores idle. What the tests
beside the fleet print is shown when they have ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

NO_TESTS = 5


def main() -> int:
    command = ["pytest", "tests/fleet", *sys.argv[1:]]
    with tempfile.TemporaryFile() as log:
        alone = subprocess.Popen(command, env={**os.environ, "LANE": "alone"}, stdout=log, stderr=subprocess.STDOUT)
        fleet = subprocess.Popen(command, env={**os.environ, "LANE": "fleet"})
        ended = [ended_by(fleet), ended_by(alone)]
        log.seek(0)
        sys.stdout.flush()
        os.write(1, b"\nBeside the fleet:\n" + log.read())
    # What was chosen may all be in one lane.
    worst = [status for status in ended if status not in (0, NO_TESTS)]
    return worst[0] if worst else min(ended)


def ended_by(lane: subprocess.Popen[bytes]) -> int:
    """Its exit status; a terminal's Ctrl-C reaches the lanes as well, which then put their labs away."""
    while True:
        try:
            return lane.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main())
