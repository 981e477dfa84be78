"""docs/observability.md and docs/openapi.json describe the application as it is."""

import json
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import LogLines
from tools import openapi
from tools.checkout import PROJECT

OBSERVABILITY = PROJECT / "docs" / "observability.md"


@pytest.fixture
def pod_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that Kubernetes sets in a pod. The formatter reads them when it is created."""
    for name in ("POD_NAME", "POD_NAMESPACE", "NODE_NAME"):
        monkeypatch.setenv(name, "test")


@pytest.mark.usefixtures("pod_variables")
async def test_the_access_log_line_has_the_documented_fields_and_values(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    documented_line = json.loads(OBSERVABILITY.read_text().split("```json\n")[1].split("```")[0])
    headers = {"traceparent": documented_line["traceparent"]}
    await client.get(documented_line["path"], headers=headers)
    [line] = [line for line in log_lines() if line["message"] == "request"]
    assert list(line) == list(documented_line)
    constant = ("level", "logger", "message", "traceparent", "method", "path", "status", "client")
    for name in constant:
        assert line[name] == documented_line[name]


async def test_the_documented_queries_use_existing_metrics(client: httpx.AsyncClient) -> None:
    await client.get("/version")
    await client.get("/version", headers={"Host": "not valid"})
    metrics = text_string_to_metric_families((await client.get("/metrics")).text)
    existing = {sample.name for metric in metrics for sample in metric.samples}
    page = OBSERVABILITY.read_text()
    documented = set(re.findall(r"\bhttp_\w+_(?:count|bucket|sum|total)\b", page))
    assert documented
    assert documented <= existing


def test_the_committed_openapi_document_is_current() -> None:
    """If this test fails, run `make openapi` and review the diff. `make lint` compares too."""
    assert (PROJECT / openapi.DOCUMENT).read_text() == openapi.render()
