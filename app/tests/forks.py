"""Processes of the service that share one import: each is forked from a process that has the code loaded.

Otherwise they are as a host's: a process id, signals, files and an environment of their own. Starting one so takes some
hundredths of a second, in place of three seconds, which the tests of a start itself (ProcessService) still pay.
"""

import atexit
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import IO, Any

# What each command runs, as on a host.
COMMANDS = {
    "worker": "agent_service.worker",
    "agentctl": "agent_service.cli",
}
# And what these load when they begin.
_PRELOADED = (*COMMANDS.values(), "agent_service.commands.jobs", "langchain_deepseek")


class Forked:
    """One process; the part of subprocess.Popen's interface that the tests need."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile("r")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(command: str, *arguments: str, cwd: Path, env: dict[str, str], stdout: IO[Any], stderr: IO[Any]) -> Forked:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server())
    order = json.dumps({"command": command, "arguments": arguments, "cwd": str(cwd), "env": env}).encode()
    socket.send_fds(connection, [len(order).to_bytes(4, "big")], [stdout.fileno(), stderr.fileno()])
    connection.sendall(order)
    return Forked(connection)


@cache
def _server() -> str:
    """The address of the process that the others are forked from; it ends with the tests."""
    directory = Path(tempfile.mkdtemp(prefix="agent-forks-"))
    address = str(directory / "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def stop() -> None:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)

    atexit.register(stop)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return address


def _serve(address: str) -> dict[str, Any] | None:
    """Fork what is ordered, and say how it ended; in a process that was forked, return its order."""
    for module in _PRELOADED:
        importlib.import_module(module)
    importlib.import_module("shipped").share()
    gc.collect()
    gc.freeze()
    running: dict[int, socket.socket] = {}
    awake, waker = socket.socketpair()
    for end in (awake, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    # An interrupt of the tests is theirs: they end what they started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    selector = selectors.DefaultSelector()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(awake, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is awake:
                if signal.SIGTERM in awake.recv(1000):
                    return None
                while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    connection = running.pop(ended[0])
                    connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
                    connection.close()
                continue
            connection, _ = listener.accept()
            size, files, _, _ = socket.recv_fds(connection, 4, 2)
            order: dict[str, Any] = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
            if (process := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                selector.close()
                for other in (listener, awake, waker, connection, *running.values()):
                    other.close()
                for target, file in enumerate(files, 1):
                    os.dup2(file, target)
                    os.close(file)
                return order
            for file in files:
                os.close(file)
            running[process] = connection
            connection.sendall(f"{process}\n".encode())


def _main() -> int | str | None:
    order = _serve(sys.argv[1])
    if order is None:
        return 0
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv = [order["command"], *order["arguments"]]
    result: int | None = sys.modules[COMMANDS[order["command"]]].main()
    return result


if __name__ == "__main__":
    sys.exit(_main())
