import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import read_options
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import (
    Known,
    Place,
    Variable,
    judge_variables,
    roles_of,
)

KNOWN = Known(
    roles={
        "agent": read_options(
            "agent",
            {
                "agent_port": {"type": "int", "default": 8100},
                "agent_notify": {"type": "bool", "default": True},
                "agent_api_key": {"type": "str", "required": True, "no_log": True},
                "agent_database_host": {"type": "str", "default": "{{ … }}"},
                "agent_database_url": {"type": "str", "default": "", "no_log": True},
                "agent_database_password": {"type": "str", "required": True, "no_log": True},
                "agent_model_key": {"type": "str", "required": True, "no_log": True},
                "agent_secrets": {"type": "dict", "default": {}, "no_log": True},
            },
        ),
        "postgres": read_options("postgres", {"postgres_databases": {"type": "list", "default": "{{ … }}"}}),
    },
    fleet=read_options("fleet", {"fleet_name": {"type": "str"}}),
    playbooks={
        "site": {},
        "deploy": read_options("deploy", {"strategy": {"type": "str", "choices": ["rolling", "blue_green"]}}),
    },
)
PLACE = Place("inventories/single", "inventories/single/group_vars/all/vault.yml", "encrypted")
WHERE = "inventories/single/group_vars/all/main.yml:4"
SECRET = "a9Xf02LmQr7TzK4sPw81"
SECRETS = {"agent_api_key": SECRET, "agent_database_password": SECRET[::-1], "agent_model_key": ""}


def judge(*variables, secrets=SECRETS, groups=("agents",), unset=None, playbook="site", place=PLACE):
    given = [Variable(name, WHERE, value) for name, value in secrets.items()]
    by_name = {variable.name: variable for variable in (*given, *variables)}
    found = judge_variables("agent1", groups, by_name, unset or {}, KNOWN, playbook, place)
    return [(finding.host, finding.text, finding.mend) for finding in found]


def in_inventory(name, value=None, **rest):
    return Variable(name, WHERE, value, **rest)


def option(name, value):
    return Variable(name, "-e", value, extra=True)


def test_a_right_inventory_is_fine():
    fine = [in_inventory("agent_port", 8200), in_inventory("fleet_name", "shop"), in_inventory("strategy", "rolling")]
    own = [in_inventory(name, 1) for name in ("my_color", "vault_key", "_computed", "ansible_user", "group_names")]
    assert judge(*fine, *own) == []


def test_a_misspelt_name_is_told_with_the_right_one():
    assert judge(in_inventory("agnet_port", 8100)) == [
        (
            "agent1",
            f"unknown variable 'agnet_port' in {WHERE}; did you mean 'agent_port'?",
            "Correct it there; a variable of your own is named my_agnet_port",
        )
    ]


@pytest.mark.parametrize("name", ["agent_colour_of_the_sky", "colour_of_the_sky"])
def test_a_name_that_is_like_no_other_is_told_without_a_guess(name):
    [(_, text, _)] = judge(in_inventory(name))
    assert text == f"unknown variable '{name}' in {WHERE}"


@pytest.mark.parametrize(
    ("value", "told"),
    [("eighty", "must be a whole number, not 'eighty'"), (None, "is null"), ([], "must be a whole number, not []")],
)
def test_a_wrong_value_is_told_with_its_place(value, told):
    assert judge(in_inventory("agent_port", value)) == [
        ("agent1", f"'agent_port' in {WHERE} {told}", "Correct it there")
    ]


def test_an_option_of_another_playbook_is_told_as_that():
    [(host, text, mend)] = judge(option("strategy", "rolling"))
    assert (host, text) == ("", "'strategy' is an option of deploy.yml, not of site.yml")
    assert mend == "Correct the command line; site.yml takes no options of its own, only variables"


def test_a_wrong_option_is_told_with_the_allowed_values():
    [(host, text, mend)] = judge(option("strategy", "canarry"), playbook="deploy")
    assert (host, text) == ("", "-e strategy must be one of rolling, blue_green, not 'canarry'")
    assert mend == "Correct the command line"


def test_a_misspelt_option_is_told_with_the_right_one():
    [(_, text, _)] = judge(option("stratgy", "rolling"), playbook="deploy")
    assert text == "unknown option -e stratgy; did you mean 'strategy'?"


@pytest.mark.parametrize(
    ("state", "command"),
    [
        ("encrypted", "Set it: ansible-vault edit inventories/single/group_vars/all/vault.yml"),
        ("absent", "Set it: ansible-vault create inventories/single/group_vars/all/vault.yml"),
        ("plain", "then: ansible-vault encrypt inventories/single/group_vars/all/vault.yml"),
    ],
)
def test_a_missing_secret_is_told_with_the_command_that_sets_it(state, command):
    place = Place(PLACE.inventory, PLACE.vault, state)
    secrets = {name: value for name, value in SECRETS.items() if name != "agent_database_password"}
    [(host, text, mend)] = judge(secrets=secrets, place=place)
    assert (host, text) == ("agent1", "secret 'agent_database_password' is not set")
    assert command in mend


def test_a_secret_is_asked_for_only_where_a_role_needs_it():
    assert judge(secrets={}, groups=("edge",)) == []


def test_a_secret_that_a_roles_default_needs_is_asked_for():
    [(_, text, _)] = judge(secrets={}, groups=("postgres",), unset={"postgres_databases": "agent_database_password"})
    assert text == "secret 'agent_database_password' is not set"


@pytest.mark.parametrize(
    ("value", "told"),
    [("CHANGE-ME", "is a placeholder"), ("k9Zq", "is shorter than 16 characters"), ("", "is empty"), (None, "is null")],
)
def test_what_is_no_secret_yet_is_told_without_its_value(value, told):
    found = judge(in_inventory("agent_api_key", value, vault=PLACE.vault))
    assert found == [
        ("agent1", f"secret 'agent_api_key' in {WHERE} {told}", f"Correct it: ansible-vault edit {PLACE.vault}")
    ]


def test_a_secret_in_a_plain_file_is_replaced_and_encrypted():
    place = Place(PLACE.inventory, PLACE.vault, "plain")
    [(_, _, mend)] = judge(Variable("agent_api_key", f"{PLACE.vault}:3", "CHANGE-ME"), place=place)
    assert mend == f"Replace it there (openssl rand -hex 24 makes one), then: ansible-vault encrypt {PLACE.vault}"


def test_a_service_without_a_database_needs_no_password_for_it():
    empty = in_inventory("agent_database_password", "")
    [(_, text, _)] = judge(empty)
    assert text == f"secret 'agent_database_password' in {WHERE} is empty"
    assert judge(empty, in_inventory("agent_database_host", "")) == []
    assert judge(empty, in_inventory("agent_database_host", "10.0.0.9")) != []


def test_a_database_elsewhere_brings_its_password_along():
    empty = in_inventory("agent_database_password", "")
    url = "postgresql://app:{}@db.example.com/shop"
    assert judge(empty, in_inventory("agent_database_url", url.format("k9Zq-2Lm"))) == []
    assert judge(empty, in_inventory("agent_database_url", "")) != []
    [(_, text, _)] = judge(empty, in_inventory("agent_database_url", url.format("change-me")))
    assert text == f"secret 'agent_database_url' in {WHERE} is a placeholder"


def test_a_key_that_may_be_empty_may_be_empty():
    assert judge(in_inventory("agent_model_key", "")) == []
    assert judge(in_inventory("agent_model_key", "sk-k9Zq")) == []
    [(_, text, _)] = judge(in_inventory("agent_model_key", "your-api-key"))
    assert text == f"secret 'agent_model_key' in {WHERE} is a placeholder"


def test_the_secrets_of_an_own_app_are_looked_at():
    [(_, text, _)] = judge(in_inventory("agent_secrets", {"crm_token": "changeme", "short": "k9Zq"}))
    assert text == f"secret 'agent_secrets' in {WHERE} key 'crm_token' is a placeholder"


def test_a_template_without_its_variable_names_it():
    [(_, text, mend)] = judge(in_inventory("agent_api_key", lacks="vault_agent_api_key"))
    assert text == f"'agent_api_key' in {WHERE} needs 'vault_agent_api_key', which is not set"
    assert mend == f"Set it: ansible-vault edit {PLACE.vault}"
    [(_, _, mend)] = judge(in_inventory("agent_port", lacks="my_port"))
    assert mend == "Set it in inventories/single"


def test_what_cannot_be_decrypted_is_told_with_the_way_to_give_the_password():
    [(_, text, mend)] = judge(in_inventory("agent_api_key", broken="cannot be decrypted"))
    assert text == f"'agent_api_key' in {WHERE} cannot be decrypted"
    assert "--ask-vault-pass" in mend


def test_what_needs_facts_is_left_to_its_role():
    assert judge(in_inventory("agent_port", later=True)) == []


def test_no_secret_is_ever_in_a_line():
    values = ["hunter2-hunter2", ["hunter2"], {"key": "hunter2"}, "password-hunter2"]
    for name in ("agent_api_key", "agent_model_key", "agent_secrets"):
        for value in values:
            assert "hunter2" not in str(judge(in_inventory(name, value)))


def test_the_roles_of_a_host_follow_its_groups():
    assert roles_of(["postgres", "redis"]) == [
        *("base", "firewall", "exporters", "routine", "logs", "backup", "postgres", "redis"),
    ]
    assert roles_of(["my_own_group"]) == ["base", "firewall", "exporters", "routine", "logs", "backup"]
    assert roles_of(["monitoring"])[-3:] == ["prometheus", "alertmanager", "grafana"]
