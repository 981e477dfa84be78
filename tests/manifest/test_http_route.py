"""The HTTPRoute of the component `gateway` is valid, and makes only the intended paths public."""

import pytest
import yaml
from jsonschema import Draft202012Validator

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings
from tests.gateway_api import http_route_crd
from tests.manifest.conftest import OVERLAYS
from tools.cluster.kubectl import KubernetesObject

INTERNAL_PATHS = {
    "/docs",
    "/docs/oauth2-redirect",
    "/metrics",
    "/openapi.json",
    "/ready",
    "/version",
}


@pytest.fixture
def http_route() -> KubernetesObject:
    """The HTTPRoute as rendered."""
    if not OVERLAYS:
        pytest.skip("kubectl is not installed")  # with CI=true, test_production.py fails
    return OVERLAYS[-1].find("HTTPRoute")


def test_the_route_matches_the_schema_of_the_gateway_api(http_route: KubernetesObject) -> None:
    crd = yaml.safe_load(http_route_crd().read_text())
    schemas = {
        version["name"]: version["schema"]["openAPIV3Schema"]
        for version in crd["spec"]["versions"]
        if version["served"]
    }
    schema = schemas[http_route["apiVersion"].partition("/")[2]]
    Draft202012Validator(refuse_unknown_fields(schema)).validate(http_route)


def refuse_unknown_fields(schema: KubernetesObject) -> KubernetesObject:
    """Return the schema with `additionalProperties: false`, as kubectl's validation has it."""
    strict = dict(schema)
    if "properties" in schema:
        properties = schema["properties"].items()
        strict["properties"] = {name: refuse_unknown_fields(each) for name, each in properties}
        strict["additionalProperties"] = False
    if "items" in schema:
        strict["items"] = refuse_unknown_fields(schema["items"])
    return strict


def test_the_route_leads_to_the_service_of_the_api(http_route: KubernetesObject) -> None:
    (service_port,) = OVERLAYS[-1].find("Service", "api")["spec"]["ports"]
    (rule,) = http_route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "api", "port": service_port["port"]}]


def test_every_endpoint_is_public_except_those_for_the_operation(
    http_route: KubernetesObject, make_settings: MakeSettings
) -> None:
    """A domain that is missing in http-route.yaml fails this test."""
    paths = create_app(make_settings()).openapi()["paths"].keys() | INTERNAL_PATHS
    public_paths = {path for path in paths if is_public(http_route, path)}
    assert public_paths == paths - INTERNAL_PATHS


@pytest.mark.parametrize("path", ["/", "/health/", "/healthy", "/metrics/", "//metrics"])
def test_similar_paths_are_not_public(http_route: KubernetesObject, path: str) -> None:
    assert not is_public(http_route, path)


def is_public(http_route: KubernetesObject, path: str) -> bool:
    """Whether a rule matches the path, by the rules of the Gateway API's HTTPPathMatch."""
    for rule in http_route["spec"]["rules"]:
        for match in rule["matches"]:
            value = match["path"]["value"]
            if path == value:
                return True
            if match["path"]["type"] == "PathPrefix" and path.startswith(value.rstrip("/") + "/"):
                return True
    return False
