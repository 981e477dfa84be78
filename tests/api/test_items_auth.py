"""With JWT_ISSUER, reading items requires the scope `items:read`, and writing `items:write`."""

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.api.auth_app import bearer
from tests.conftest import MakeSettings, Serve
from tests.issuer import AUDIENCE, Issuer

OPERATIONS = {
    "GET /items/{item_id}": "items:read",
    "GET /items": "items:read",
    "POST /items": "items:write",
    "PUT /items/{item_id}": "items:write",
    "DELETE /items/{item_id}": "items:write",
}
OTHER_SCOPE = {"items:read": "items:write", "items:write": "items:read"}


async def send(client: httpx.AsyncClient, operation: str, token: str = "") -> int:
    """The status of a request, with a valid body if the method has one."""
    method, template = operation.split()
    json = {"name": "x"} if method in ("POST", "PUT") else None
    headers = {"If-Match": "*"} | (bearer(token) if token else {})
    path = template.format(item_id="019a0000-0000-7000-8000-000000000000")
    return (await client.request(method, path, json=json, headers=headers)).status_code


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_each_operation_requires_its_scope(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve, operation: str
) -> None:
    """With the scope, the response is 503, because the database is unreachable."""
    scope = OPERATIONS[operation]
    app = create_app(make_settings(jwt_issuer=issuer.url, jwt_audience=AUDIENCE))
    method, path = operation.split()
    documented = app.openapi()["paths"][path][method.lower()]["security"]
    assert documented == [{"bearer": [scope]}]
    async with serve(app) as client:
        assert await send(client, operation) == 401
        assert await send(client, operation, issuer.sign(scope=OTHER_SCOPE[scope])) == 403
        assert await send(client, operation, issuer.sign(scope=scope)) == 503
