"""The document is true: whatever is sent by it is answered as it says."""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from service import KEY, Client, LocalService

from agent_service.application import create_app
from agent_service.core.settings import Settings

EXAMPLES = 25

schema = schemathesis.openapi.from_dict(create_app(Settings(_env_file=None, api_key=KEY)).openapi())


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_documented(case: Case, offline: LocalService) -> None:
    case.call_and_validate(base_url=f"http://127.0.0.1:{offline.port}", headers={"Authorization": f"Bearer {KEY}"})


def test_document_is_for_holders_of_a_key(client: Client) -> None:
    assert client.get("/openapi.json").status_code == 200
    assert client.get("/openapi.json", headers={"Authorization": ""}).status_code == 401
