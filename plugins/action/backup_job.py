"""Have a host's own program for backups or restores do something; see modules/backup_job.py for the options."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.agentfleet.vm.plugins.modules.backup_job import ARGUMENTS

display = Display()
PROGRAMS = {
    "backup": "/usr/local/lib/agentfleet/backup/agentfleet-backup",
    "restore": "/usr/local/lib/agentfleet/backup/agentfleet-restore",
}
JOBS = "/run/agentfleet-jobs"
# The unit's name is the job's: one of the same number is still there when somebody else comes back to it.
START = """
set -e
[ -x @PROGRAM@ ] || { echo "no program" >&2; exit 9; }
mkdir -p -m 0700 @JOBS@
job=$(date +%s)-$$
: > @JOBS@/$job.said
systemd-run --quiet --collect --unit=agentfleet-job-$job --property=Type=exec --property=Nice=5 \\
  sh -c '@PROGRAM@ @WORDS@ --json > @JOBS@/'$job'.told 2>> @JOBS@/'$job'.said; echo $? > @JOBS@/'$job'.ended'
echo "$job"
"""
LOOK = """
tail -c +@FROM@ @JOBS@/@JOB@.said
if [ -e @JOBS@/@JOB@.ended ]; then echo; echo "@MARK@ ended"; cat @JOBS@/@JOB@.told; rm -f @JOBS@/@JOB@.*
elif ! systemctl is-active --quiet agentfleet-job-@JOB@; then
  sleep 1
  [ -e @JOBS@/@JOB@.ended ] || { echo; echo "@MARK@ gone"; }
fi
"""
MARK = "agentfleet-job:"
# The first looks come sooner: most commands are short.
LOOK_SECONDS = (0.2, 0.5, 1.0, 2.0)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(argument_spec=ARGUMENTS)[1]
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode and wanted["changes"]:
            return {**result, "changed": True, "lines": [], "failed_parts": [], "told": {}, "note": ""}
        told = self._follow(PROGRAMS[wanted["program"]], wanted["words"])
        failed = [str(line) for line in told.get("failed") or []]
        answer = {
            **result,
            "changed": bool(told.get("changed")),
            "lines": told.get("lines", []),
            "failed_parts": failed,
            "told": {name: value for name, value in told.items() if name not in ("changed", "failed", "lines")},
            "note": str(told.get("note", "")),
        }
        return {**answer, "failed": True, "msg": "\n".join(failed)} if failed else answer

    def _follow(self, program: str, words: list[str]) -> dict[str, Any]:
        given = " ".join(shlex.quote(word) for word in words)
        # It stands between single quotes there.
        inner = given.replace("'", "'\\''")
        script = START.replace("@PROGRAM@", program).replace("@WORDS@", inner).replace("@JOBS@", JOBS)
        job = self._shell(script).strip().splitlines()[-1]
        begin, looks = 1, iter(LOOK_SECONDS)
        while True:
            time.sleep(next(looks, LOOK_SECONDS[-1]))
            look = LOOK.replace("@FROM@", str(begin)).replace("@JOBS@", JOBS).replace("@JOB@", job)
            said, ended, rest = self._shell(look.replace("@MARK@", MARK)).partition(f"\n{MARK} ")
            for line in said.splitlines():
                display.display(f"  {line}")
            begin += len(said.encode())
            if ended:
                how, _newline, document = rest.partition("\n")
                return self._read(how.strip(), document, said)

    def _read(self, how: str, document: str, said: str) -> dict[str, Any]:
        try:
            if how == "ended":
                told: dict[str, Any] = json.loads(document.strip().splitlines()[-1])
                return told
        except (ValueError, IndexError):
            pass
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise AnsibleError(f"the command ended without an answer: {last}")

    def _shell(self, script: str) -> str:
        # As input, so that SSH gives no terminal, which would change what is said.
        done = self._low_level_execute_command("sh", in_data=script.encode(), sudoable=True)
        if done["rc"] == 9:
            raise AnsibleError("this host is not set up for backups: run ansible-playbook playbooks/site.yml")
        if done["rc"]:
            said = (done["stderr"] or done["stdout"]).strip().splitlines() or ["it said nothing"]
            raise AnsibleError(said[-1])
        return str(done["stdout"])
