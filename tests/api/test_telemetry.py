"""FastAPI's OpenTelemetry costs a request nothing unless it is switched on."""

import httpx
import pytest
from opentelemetry import trace

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings


class Provider(trace.NoOpTracerProvider):
    """A provider that counts how often somebody looks for it."""

    lookups = 0

    def find(self) -> trace.TracerProvider:
        self.lookups += 1
        return self


@pytest.mark.parametrize(
    ("variables", "is_on"),
    [
        ({}, False),
        ({"FASTAPI_OTEL_AUTO_CONFIGURE": "false"}, False),
        ({"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}, True),
    ],
    ids=["unset", "false", "true"],
)
async def test_fastapi_looks_for_a_provider_only_if_telemetry_is_on(
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    is_on: bool,
) -> None:
    provider = Provider()
    monkeypatch.setattr(trace, "get_tracer_provider", provider.find)
    monkeypatch.delenv("FASTAPI_OTEL_AUTO_CONFIGURE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # Without the lifespan, which would need the SDK and an exporter.
    transport = httpx.ASGITransport(create_app(make_settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/health")).status_code == 200
    assert (provider.lookups > 0) == is_on
