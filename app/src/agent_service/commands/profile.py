"""Where a running instance spends its time, by py-spy, which looks at it from outside and slows it by a few percent."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

INSTALL = "uv tool install py-spy   (or: pip install py-spy)"
FORMATS = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}
# How the service and its worker are started, on a host and by `agentctl dev`.
MARKS = ("agent_service.main", "agent_service.worker")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid", type=int, help="the process; the only instance on this machine by default")
    parser.add_argument("--seconds", type=int, default=30, help="how long to look (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=100, help="looks a second (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, help="a flame graph (.svg), a speedscope document (.json) or raw stacks (.txt)"
    )
    parser.add_argument("--now", action="store_true", help="only print what each thread does at this moment")


def run(options: argparse.Namespace) -> int:
    program = shutil.which("py-spy")
    if program is None:
        print(f"py-spy is not there; install it with: {INSTALL}", file=sys.stderr)
        return 2
    pid = options.pid or the_instance(dict(instances()))
    if options.now:
        return subprocess.run([program, "dump", "--pid", str(pid)], check=False).returncode
    output: Path = options.output or Path(f"profile-{pid}.svg")
    if output.suffix not in FORMATS:
        print(f"{output}: the name has to end with {', '.join(FORMATS)}", file=sys.stderr)
        return 2
    words = ["--format", FORMATS[output.suffix], "--duration", str(options.seconds), "--rate", str(options.rate)]
    done = subprocess.run(
        [program, "record", "--pid", str(pid), *words, "--output", str(output), "--idle"], check=False
    )
    if done.returncode:
        print(
            f"py-spy could not look at process {pid}; it takes root: sudo agentctl profile --pid {pid}", file=sys.stderr
        )
        return done.returncode
    print(f"{output} is written; open it in a browser" if output.suffix == ".svg" else f"{output} is written")
    return 0


def the_instance(found: dict[int, str]) -> int:
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise SystemExit("No instance of the service runs on this machine; name its process with --pid.")
    lines = "\n".join(f"  --pid {pid}  {command}" for pid, command in sorted(found.items()))
    raise SystemExit(f"Several run; name one:\n{lines}")


def instances() -> Iterator[tuple[int, str]]:
    """Processes of the service, each with its command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word.partition(":")[0] in MARKS for word in words):
            yield int(entry.name), " ".join(words)[:120].strip()
