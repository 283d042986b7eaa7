"""The document is true: whatever is sent by it is answered as it says."""

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance
from servers import free_port
from service import KEY, Client, LocalService
from work import SECRET, TOKEN

from agent_service.api.background import ANALYZE
from agent_service.application import create_app
from agent_service.core.settings import Settings

EXAMPLES = 25

schema = schemathesis.openapi.from_dict(create_app(Settings(_env_file=None, api_key=KEY)).openapi())


@pytest.fixture(scope="module")
def whole(run: Callable[[dict[str, Any]], LocalService], base_settings: dict[str, Any]) -> LocalService:
    """All that there is switched on; nobody does the work, and what is sent goes nowhere."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    webhook = {"uaz_webhook_secret": SECRET, "uaz_url": nowhere, "uaz_token": TOKEN, "crm_url": nowhere}
    return run({**base_settings, **webhook, "model_key": "", "queue": True, "release": "documented"})


@schema.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_documented(case: Case, whole: LocalService) -> None:
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{whole.port}",
        headers={"Authorization": f"Bearer {KEY}"},
        # Which files and hosts are read is a matter of names and settings, of which the document says nothing.
        excluded_checks=[positive_data_acceptance] if case.path == ANALYZE else [],
    )


def test_document_is_for_holders_of_a_key(client: Client) -> None:
    assert client.get("/openapi.json").status_code == 200
    assert client.get("/openapi.json", headers={"Authorization": ""}).status_code == 401
