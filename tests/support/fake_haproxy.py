"""HAProxy's runtime socket as HAProxy 2.6 and 3.0 speak it, without HAProxy."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

STATE_COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
    " srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state"
    " bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr"
    " srv_agent_addr srv_agent_port"
)


@dataclass
class FakeServer:
    weight: int = 0
    up: bool = True
    admin: int = 0
    sessions: int = 0
    given: int = 0
    answered: int = 0
    port: int = 8100
    check: tuple[str, str, str] = ("L7OK", "200", "")


@dataclass
class FakeHaproxy:
    path: str
    backend: str
    servers: dict[str, FakeServer]
    commands: list[str] = field(default_factory=list)
    pid: int = 100
    deaf_to: tuple[str, ...] = ()
    on_command: object = None

    def __enter__(self) -> FakeHaproxy:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        Path(self.path).unlink()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with connection:
                command = connection.makefile().readline().strip()
                self.commands.append(command)
                if callable(self.on_command):
                    self.on_command(self, command)
                connection.sendall(self._answer(command).encode())

    def _answer(self, command: str) -> str:
        words = command.split()
        if words[:3] == ["show", "servers", "state"]:
            return self._states() if words[3:] in ([], [self.backend]) else "Can't find backend.\n\n"
        if command == "show info":
            return f"Name: HAProxy\nPid: {self.pid}\nUptime_sec: 1\n\n"
        if words[:2] == ["show", "stat"]:
            return self._stats() if words[2] == self.backend else "No such proxy.\n\n"
        if words[:2] == ["set", "weight"]:
            return self._set_weight(words[2].split("/")[1], int(words[3]))
        if words[:2] == ["set", "server"] and words[3] == "state":
            self.servers[words[2].split("/")[1]].admin = {"ready": 0, "drain": 8}[words[4]]
            return "\n"
        return "Unknown command\n"

    def _states(self) -> str:
        rows = [
            f"3 {self.backend} {number} {name} 10.0.0.{number} {2 if server.up else 0} {server.admin} {server.weight} 0"
            f" 7 15 3 4 6 0 0 0 - {server.port} - 0 0 - - 0"
            for number, (name, server) in enumerate(self.servers.items(), 1)
        ]
        return "\n".join(["1", f"# {STATE_COLUMNS}", *rows]) + "\n\n"

    def _stats(self) -> str:
        head = "# pxname,svname,qcur,scur,status,weight,check_status,check_code,last_chk,stot,hrsp_2xx,"
        rows = [
            f"{self.backend},{name},0,{server.sessions},{'UP' if server.up else 'DOWN'},{server.weight},"
            f"{server.check[0]},{server.check[1]},{server.check[2]},{server.given},{server.answered},"
            for name, server in self.servers.items()
        ]
        return "\n".join([head, *rows]) + "\n\n"

    def _set_weight(self, name: str, weight: int) -> str:
        if name not in self.servers:
            return "No such server.\n\n"
        if name not in self.deaf_to:
            self.servers[name].weight = weight
        return "\n"
