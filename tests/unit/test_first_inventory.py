"""Whatever the answers are, the inventory is one that Ansible and preflight take; changing it leaves the rest alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import first_inventory as first
from ansible_collections.agentfleet.vm.plugins.module_utils.first_answers import completed, judge
from ansible_collections.agentfleet.vm.plugins.module_utils.topology import Address, judge_topology
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import Place, Variable, judge_variables
from ansible_collections.agentfleet.vm.plugins.plugin_utils import first_inventory as writing
from ansible_collections.agentfleet.vm.plugins.plugin_utils.first_inventory import change, create, load
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known
from hypothesis import given, settings
from hypothesis import strategies as st

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
KNOWN = load_known()
CERTBOT = "certbot" in KNOWN.roles["tls"]["tls_mode"].choices
ONE = {
    "fleet_name": "shop",
    "addresses": "192.0.2.10",
    "domain": "agent.shop.test",
    "mail": "",
    "model_key": "",
}
THREE = {**ONE, "addresses": "192.0.2.10,192.0.2.21,192.0.2.31"}

labels = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=2, max_size=4).map(".".join)
addresses = st.one_of(st.ip_addresses(v=4).map(str), names)
keys = st.from_regex(r"sk-[0-9a-f]{32}", fullmatch=True)
paths = st.from_regex(r"[~/][A-Za-z0-9 ._/#'\"-]{1,20}", fullmatch=True).filter(lambda path: path == path.strip())


@st.composite
def accepted(draw):
    """Answers that judge() accepts, of every kind of fleet."""
    chosen = draw(st.lists(addresses, min_size=1, max_size=6, unique=True))
    answers = {
        "fleet_name": draw(labels),
        "addresses": ",".join(chosen),
        "domain": draw(names),
        "mail": draw(st.one_of(st.just(""), names.map(lambda name: f"o'ps+x@{name}"))),
        "ssh_user": draw(st.sampled_from(["root", "debian", "y", "null"])),
        "ssh_port": draw(st.integers(1, 65535).map(str)),
        "ssh_key_file": draw(st.one_of(st.just(""), paths)),
        "model_key": draw(st.one_of(st.just(""), keys)),
    }
    if not answers["mail"]:
        answers["tls_mode"] = draw(st.sampled_from(["self_signed", "files"]))
    if draw(st.booleans()):
        private = st.lists(st.ip_addresses(v=4).map(str), min_size=len(chosen), max_size=len(chosen), unique=True)
        answers["private_addresses"] = ",".join(draw(private))
    if draw(st.booleans()):
        answers |= {"app_source": draw(paths), "app": "shop.main:app"}
    return {name: value for name, value in answers.items() if not judge({name: value}, completed(ONE))} | {
        "fleet_name": answers["fleet_name"] if answers["fleet_name"] not in ("single", "fleet", "lab") else "shop"
    }


def whole(answers):
    """The answers if they are accepted together, with the defaults."""
    given_answers = {**ONE, **answers}
    if bool(given_answers.get("app")) != bool(given_answers.get("app_source")):
        given_answers |= {"app": "", "app_source": ""}
    done = completed(given_answers)
    assert judge(given_answers, done) == []
    return done


def files_of(answers, vault="---\n"):
    return {first.HOSTS: first.render_hosts(answers), first.MAIN: first.render_main(answers), first.VAULT: vault}


@pytest.mark.parametrize(
    ("answers", "encrypted"),
    [
        (ONE, False),
        (THREE, True),
        ({**THREE, "private_addresses": "10.0.0.1,10.0.0.2,10.0.0.3"}, False),
        ({**THREE, "addresses": "10.0.0.1,10.0.0.2,10.0.0.3"}, False),
    ],
)
def test_hosts_without_a_private_network_are_told_that_they_encrypt(answers, encrypted):
    assert ("is encrypted" in first.render_hosts(whole(answers))) is encrypted


def passwords():
    return first.passwords(lambda: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978")


@settings(max_examples=80, deadline=None)
@given(accepted())
def test_answers_come_back_from_what_they_made(raw):
    answers = whole(raw)
    hosts, main = first.render_hosts(answers), first.render_main(answers)
    read = completed(first.answers_in(answers["fleet_name"], load(hosts), load(main)))
    assert {name: read[name] for name in read} == {name: answers[name] for name in read}
    # So that a second run finds nothing to do.
    assert (first.render_hosts(read), first.render_main(read)) == (hosts, main)
    vault = load(first.render_vault(passwords(), answers["model_key"]))
    assert vault == {**passwords(), "agent_model_key": answers["model_key"]}


@settings(max_examples=40, deadline=None)
@given(accepted())
def test_preflight_has_nothing_against_it(raw):
    answers = whole(raw)
    machines = first.machines_in(load(first.render_hosts(answers)))
    groups = {"all": [machine.name for machine in machines]}
    for machine in machines:
        for group in machine.groups:
            groups.setdefault(group, []).append(machine.name) if group != "all" else None
    reached = {
        one.name: Address(one.address, int(one.variables.get("ansible_port", 22)), one.private or one.address)
        for one in machines
    }
    assert judge_topology(groups, reached, (), "inventories/shop") == []

    values = load(first.render_main(answers)) | load(first.render_vault(passwords(), answers["model_key"]))
    if not CERTBOT:
        values = {name: value for name, value in values.items() if not name.startswith("tls_")}
    variables = {name: Variable(name=name, where="main.yml", value=value) for name, value in values.items()}
    place = Place("inventories/shop", "vault.yml", "encrypted")
    for machine in machines:
        assert judge_variables(machine.name, machine.groups, variables, {}, KNOWN, "site", place) == []


def test_ansible_reads_it(tmp_path):
    answers = whole({**THREE, "private_addresses": "10.0.0.10,10.0.0.21,10.0.0.31", "ssh_port": "2222"})
    create(tmp_path / "shop", files_of(answers, first.render_vault(passwords(), "")))
    command = [BIN / "ansible-inventory", "-i", tmp_path / "shop", "--list"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    read = json.loads(done.stdout)
    assert [read[group]["hosts"] for group in ("edge", "agents", "postgres", "redis")] == [
        ["edge1"],
        ["agent1"],
        ["data1"],
        ["data1"],
    ]
    agent = read["_meta"]["hostvars"]["agent1"]
    assert agent["ansible_host"] == "192.0.2.21"
    assert agent["fleet_address"] == "10.0.0.21"
    assert agent["ansible_port"] == 2222
    assert agent["edge_server_name"] == "agent.shop.test"
    assert agent["agent_api_key"] == passwords()["agent_api_key"]


def test_the_examples_are_what_it_writes():
    """One template: an inventory made by hand from an example and one made by init.yml have the same words."""
    command = [sys.executable, TOP / "tests/tools/examples.py", "--check"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(TOP / ".collections")}, check=True)


# Changes


def changed(texts, before, **given_now):
    after = first.merge(before, given_now)
    hosts = first.change_hosts(texts[first.HOSTS], before, after, load, "hosts.yml")
    main = first.change_main(texts[first.MAIN], before, after, load, "main.yml")
    return hosts, main


def edited(answers):
    """What a person made of it."""
    hosts = first.render_hosts(answers).replace("ansible_user: root", "ansible_user: root  # for now")
    hosts = hosts.replace("    edge:\n", "    # Mine.\n    edge:\n")
    main = first.render_main(answers).replace("agent_instances: 1", "agent_instances: 4  # cores") + "my_note: kept\n"
    return {first.HOSTS: hosts, first.MAIN: main}


@settings(max_examples=40, deadline=None)
@given(accepted())
def test_the_same_answers_again_change_nothing(raw):
    answers = whole(raw)
    for texts in (files_of(answers), edited(answers)):
        before = completed(first.answers_in(answers["fleet_name"], load(texts[first.HOSTS]), load(texts[first.MAIN])))
        again = {name: value for name, value in raw.items() if name not in ("app", "app_source") or answers["app"]}
        hosts, main = changed(texts, before, **again)
        assert (hosts.text, main.text) == (texts[first.HOSTS], texts[first.MAIN])
        assert hosts.findings == main.findings == ()


def diff(before, after):
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


@pytest.mark.parametrize(
    ("asked", "file", "gone", "come"),
    [
        (
            {"domain": "chat.shop.test"},
            first.MAIN,
            ["edge_server_name: agent.shop.test"],
            ["edge_server_name: chat.shop.test"],
        ),
        (
            {"mail": "ops@shop.test"},
            first.MAIN,
            ["tls_mode: self_signed"],
            ["tls_mode: certbot", "tls_mail: ops@shop.test"],
        ),
        (
            {"ssh_user": "debian"},
            first.HOSTS,
            ["        ansible_user: root  # for now"],
            ["        ansible_user: debian  # for now"],
        ),
        ({"ssh_port": "2222"}, first.HOSTS, [], ["        ansible_port: 2222"]),
        (
            {"addresses": "192.0.2.10,192.0.2.99,192.0.2.31"},
            first.HOSTS,
            ["        agent1: {ansible_host: 192.0.2.21}"],
            ["        agent1: {ansible_host: 192.0.2.99}"],
        ),
    ],
)
def test_of_an_edited_inventory_only_what_is_asked_changes(asked, file, gone, come):
    answers = whole(THREE)
    texts = edited(answers)
    hosts, main = changed(texts, answers, **asked)
    assert hosts.findings == main.findings == ()
    now = {first.HOSTS: hosts.text, first.MAIN: main.text}
    assert diff(texts[file], now[file]) == (gone, come)
    [other] = set(now) - {file}
    assert now[other] == texts[other]


def test_another_host_is_added_where_nobody_edited_and_else_left_to_a_person():
    answers = whole(THREE)
    more = {"addresses": f"{THREE['addresses']},192.0.2.41"}
    hosts, _ = changed(files_of(answers), answers, **more)
    assert [machine.name for machine in first.machines_in(load(hosts.text))] == ["edge1", "agent1", "agent2", "data1"]
    hosts, _ = changed(edited(answers), answers, **more)
    assert hosts.text == edited(answers)[first.HOSTS]
    assert [finding.text for finding in hosts.findings] == [
        "hosts.yml was edited so that its hosts cannot be changed here"
    ]


def test_an_own_app_is_put_into_an_edited_file_with_all_that_it_needs():
    answers = whole(ONE)
    texts = edited(answers)
    _, main = changed(texts, answers, app_source="~/shop", app="shop.main:app")
    assert load(main.text) == {
        **load(texts[first.MAIN]),
        "agent_source": "~/shop",
        "agent_app": "shop.main:app",
        "agent_migrate_command": "",
        "agent_notify": False,
        "agent_probe_path": "/health",
        "agent_metrics_path": "",
        "agent_smoke_requests": [{"path": "/health"}],
    }


def test_what_cannot_be_changed_line_by_line_is_left_alone():
    answers = whole(ONE)
    texts = edited(answers)
    texts[first.MAIN] = texts[first.MAIN].replace(": agent.shop.test", ": >-\n  agent.shop.test")
    _, main = changed(texts, answers, domain="chat.shop.test")
    assert main.text == texts[first.MAIN]
    [finding] = main.findings
    assert finding.text == "main.yml was edited so that edge_server_name cannot be changed here"


def test_the_key_changes_and_passwords_and_comments_stay():
    text = first.render_vault(passwords(), "") + "# Mine.\nvault_mine: 1\n"
    now = first.change_vault(text, "sk-new")
    assert diff(text, now) == (['agent_model_key: ""'], ['agent_model_key: "sk-new"'])
    assert first.change_vault(now, "") == text


def test_hosts_of_another_shape_are_found_with_what_they_inherit():
    [edge, agent] = first.machines_in(
        load(
            """
all:
  vars: {ansible_user: debian}
  children:
    machines:
      children:
        edge: {hosts: {front: {ansible_host: 192.0.2.1, ansible_user: root}}}
        agents: {hosts: {back: {ansible_host: 192.0.2.2}}, vars: {ansible_port: 2222}}
"""
        )
    )
    assert (edge.name, edge.address, edge.variables["ansible_user"]) == ("front", "192.0.2.1", "root")
    assert {"edge", "machines"} <= set(edge.groups)
    assert agent.variables == {"ansible_user": "debian", "ansible_port": "2222"}


def test_a_password_that_looks_like_a_placeholder_is_not_taken():
    good = [f"0f1e2d3c4b5a69788796a5b4{number}" for number in range(len(first.GENERATED) + 1)]
    made = iter(["0f1e2d3caaaaaa9788796a5b4", *good])
    assert "aaaaaa" not in str(first.passwords(lambda: next(made)))


def written_whole():
    answers = whole(ONE)
    return files_of(answers) | {first.PASSWORD: "open sesame\n", first.IGNORED: "/credentials/\n"}


@pytest.mark.parametrize("writes", range(6))
def test_a_run_interrupted_anywhere_leaves_no_inventory(tmp_path, monkeypatch, writes):
    real, left = writing._write, iter(range(writes))

    def interrupted(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(*arguments)

    def rename(_path, _target):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "_write", interrupted)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path / "shop", written_whole())
    assert not (tmp_path / "shop").exists()
    unfinished = tmp_path / ".shop.unfinished"
    # Git would take what nothing keeps it from.
    assert (unfinished / first.IGNORED).exists() or not (unfinished / first.PASSWORD).exists()
    monkeypatch.undo()
    create(tmp_path / "shop", written_whole())
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert {
        str(path.relative_to(tmp_path / "shop")) for path in (tmp_path / "shop").rglob("*") if path.is_file()
    } == set(written_whole())


def test_a_change_that_is_interrupted_is_completed_by_the_next(tmp_path, monkeypatch):
    create(tmp_path / "shop", written_whole())
    wanted = {first.HOSTS: "hosts: new\n", first.MAIN: "main: new\n"}
    old = (tmp_path / "shop" / first.MAIN).read_text()
    real, left = Path.rename, iter(range(1))

    def rename(path, target):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        change(tmp_path / "shop", wanted)
    assert [(tmp_path / "shop" / name).read_text() for name in wanted] == ["hosts: new\n", old]
    monkeypatch.undo()
    change(tmp_path / "shop", wanted)
    assert {name: (tmp_path / "shop" / name).read_text() for name in wanted} == wanted
    assert not [path for path in (tmp_path / "shop").rglob("*") if path.name.endswith(".new")]


def test_what_is_secret_is_for_its_owner_alone(tmp_path):
    create(tmp_path / "shop", written_whole())
    modes = {name: (tmp_path / "shop" / name).stat().st_mode & 0o077 for name in (first.PASSWORD, first.VAULT)}
    assert modes == {first.PASSWORD: 0, first.VAULT: 0}
    assert (tmp_path / "shop/credentials").stat().st_mode & 0o077 == 0
    change(tmp_path / "shop", {first.VAULT: "new\n"})
    assert (tmp_path / "shop" / first.VAULT).stat().st_mode & 0o077 == 0
