"""The routine on a host that has nothing of the fleet yet: what it looks at all the same."""

import json

PROGRAM = "/usr/local/lib/agentfleet/routine/agentfleet-routine"


def result(host, routine):
    return json.loads(host.file(f"/var/lib/agentfleet/routine/{routine}.json").content_string)


def levels(found):
    return {one["check"]: one["level"] for one in found["findings"]}


def test_the_timer_waits(host):
    assert host.service("agentfleet-routine.timer").is_running
    assert host.service("agentfleet-routine.timer").is_enabled


def test_the_unit_carries_out_what_is_due_and_then_only_the_daily_part(host):
    host.run_expect([0], "rm -rf /var/lib/agentfleet/routine; systemctl start agentfleet-routine.service")
    first = {name: result(host, name)["at"] for name in ("daily", "weekly", "monthly")}
    host.run_expect([0], "systemctl start agentfleet-routine.service")
    second = {name: result(host, name)["at"] for name in first}
    assert second["daily"] > first["daily"]
    assert (second["weekly"], second["monthly"]) == (first["weekly"], first["monthly"])


def test_a_unit_that_failed_is_a_problem(host):
    host.run("systemctl reset-failed")
    host.run_expect([0], f"{PROGRAM} daily")
    assert levels(result(host, "daily"))["units"] == "ok"
    host.run("systemd-run --wait --unit=broken false")
    host.run_expect([0], f"{PROGRAM} daily")
    [finding] = [one for one in result(host, "daily")["findings"] if one["check"] == "units"]
    assert (finding["level"], finding["mend"]) == ("problem", "systemctl status broken.service")
    host.run("systemctl reset-failed")


def test_pending_updates_are_counted(host):
    host.run_expect([0], f"{PROGRAM} monthly")
    assert levels(result(host, "monthly"))["updates"] in ("ok", "notice", "problem")
