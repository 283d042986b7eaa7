"""Ansible's default output, plus reports as plain lines and a mode in which standard output is one document."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
type: stdout
short_description: Ansible's default output with plain reports
description:
  - What M(agentfleet.vm.report) shows is printed as it is, without the dress of a task's result.
  - Of a play with the variable C(report_only=true) nothing else is printed but what fails, on standard error;
    with C(-v) it is as any other play.
  - A play with the variable C(transaction_kind) as well prints a line for each of its steps, with the seconds since it
    began. What it leaves out is in a file, which is named at the end.
  - With the extra variable C(status_format=json) standard output carries only the document of the report;
    failures and what C(-v) adds go to standard error.
  - A refusal (M(ansible.builtin.fail), M(ansible.builtin.assert)) is printed as its lines, with C(-v) as any failure.
  - An encrypted file of variables that cannot be opened is named.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration
author:
  - Agentfleet (@agentfleet)
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from ansible import constants, context
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.utils.display import Display
from ansible_collections.agentfleet.vm.plugins.plugin_utils.vaults import unreadable

REPORT = "agentfleet.vm.report"
REFUSALS = {"ansible.builtin.fail", "ansible.builtin.assert"}


# How many runs' logs stay.
LOGS = 20


def open_log(kind: str) -> TextIO | None:
    """A file for what is not shown of a run; none where there is no place for it."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(cache) / "agentfleet" / "logs"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in sorted(directory.glob("*.log"))[: -(LOGS - 1)]:
            old.unlink(missing_ok=True)
        path = directory / f"{time.strftime('%Y%m%dT%H%M%S')}-{kind}-{os.getpid()}.log"
        path.touch(mode=0o600)
        return path.open("w", encoding="utf-8")
    except OSError:
        return None


class QuietDisplay:
    """Ansible's display without standard output: ordinary lines only with -v, and then on standard error.

    What is not shown goes to LOG, if there is one.
    """

    def __init__(self, display: Display, log: TextIO | None = None) -> None:
        self._display = display
        self.log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._display, name)

    def display(self, msg: str, color: str | None = None, stderr: bool = False, **options: Any) -> None:
        if stderr or self._display.verbosity:
            self._display.display(msg, color=color, stderr=True, **options)
        if self.log:
            print(msg, file=self.log)

    def banner(self, msg: str, color: str | None = None, cows: bool = True) -> None:
        if self._display.verbosity or self.log:
            self.display(f"\n{msg}", color=color)


class CallbackModule(Default):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "agentfleet.vm.fleet"

    _display: Any

    def __init__(self) -> None:
        super().__init__()
        self._plain = self._display
        self._document_stream: TextIO | None = None
        self._log: TextIO | None = None
        self._began = time.monotonic()
        self._going_back = False

    @property
    def _quiet(self) -> bool:
        return isinstance(self._display, QuietDisplay)

    def get_option(self, option: str, hostvars: Any = None) -> Any:
        if option == "display_failed_stderr" and self._quiet:
            return True
        return super().get_option(option, hostvars)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if play.get_variable_manager().extra_vars.get("status_format") == "json" and not self._document_stream:
            # Connection plugins and the strategy write to standard output by themselves when asked to be verbose.
            self._document_stream, sys.stdout = sys.stdout, sys.stderr
        variables = play.get_vars()
        lines_alone = variables.get("report_only") is True and not self._plain.verbosity
        if lines_alone and variables.get("transaction_kind") and not self._log:
            self._log = open_log(str(variables["transaction_kind"]))
        self._display = QuietDisplay(self._plain, self._log) if self._document_stream or lines_alone else self._plain
        super().v2_playbook_on_play_start(play)
        for line in unreadable(play.get_loader(), context.CLIARGS.get("inventory") or ()):
            self._display.error(line)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        super().v2_playbook_on_task_start(task, is_conditional)
        if not self._log or not task.register:
            return
        known = task.get_vars()
        step, phase = known.get("step"), known.get("step_phase")
        if step and phase == ("back" if self._going_back else "forward"):
            hosts = ", ".join(step["slots"] or step["hosts"])
            self._plain.display(f"{time.monotonic() - self._began:6.1f} s  {task.name}: {hosts}")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._log:
            self._display = self._plain
        super().v2_playbook_on_stats(stats)
        if self._log:
            self._plain.display(f"the whole of it is in {self._log.name}")
            self._log.close()

    def v2_runner_on_unreachable(self, result: Any) -> None:
        # Who goes on without a host says so in the report.
        if not (self._quiet and result.task.ignore_unreachable):
            super().v2_runner_on_unreachable(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        task = result.task
        if self._quiet and ignore_errors:
            self._going_back = self._going_back or bool(task.get_vars().get("step", {}).get("critical"))
            if self._log:
                super().v2_runner_on_failed(result, ignore_errors)
            return
        refusal = bool(REFUSALS & {task.action, getattr(task, "resolved_action", None)})
        told = self._quiet or (refusal and {"msg", "fail_msg"} & set(task.args))
        if not told or task.loop or ignore_errors or self._display.verbosity:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        if self._last_task_banner != task._uuid:
            self._print_task_banner(task)
        lines = str(result.result.get("msg", "")).splitlines()
        text = "\n".join([f"fatal: [{self.host_label(result)}]: FAILED!", *lines])
        self._display.display(text, color=constants.COLOR_ERROR, stderr=self.get_option("display_failed_stderr"))

    def v2_runner_on_ok(self, result: Any) -> None:
        if not self._is_report(result.task):
            super().v2_runner_on_ok(result)
        elif not result.task.loop:
            self._report(result.result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._is_report(result.task):
            self._report(result.result)
        else:
            super().v2_runner_item_on_ok(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if not self._is_report(result.task):
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if not self._is_report(result.task):
            super().v2_runner_item_on_skipped(result)

    def _print_task_banner(self, task: Any) -> None:
        if self._is_report(task):
            # The lines stand for themselves; the next task prints its own banner.
            self._last_task_banner = task._uuid
        else:
            super()._print_task_banner(task)

    @staticmethod
    def _is_report(task: Any) -> bool:
        return REPORT in (task.action, getattr(task, "resolved_action", None))

    def _report(self, result: dict[str, Any]) -> None:
        if not self._document_stream:
            self._plain.display("\n".join(result.get("msg", [])))
        elif "document" in result:
            print(json.dumps(result["document"], ensure_ascii=False), file=self._document_stream, flush=True)
