"""Workers of Gunicorn verify access tokens, each with its own keys of the issuer."""

from tests.conftest import MakeSettings
from tests.integration.test_server import (
    APP_WITH_TEST_ROUTES,
    process_environment,
    running_gunicorn,
)
from tests.issuer import AUDIENCE, SUBJECT, Issuer
from tools.dev.servers import wait_until


async def test_each_worker_fetches_the_keys_and_verifies_tokens(
    make_settings: MakeSettings, issuer: Issuer
) -> None:
    environment = process_environment(
        DATABASE_URL=make_settings().database_url.get_secret_value(),
        JWT_ISSUER=issuer.url,
        JWT_AUDIENCE=AUDIENCE,
        WEB_CONCURRENCY="2",
    )
    headers = {"Authorization": f"Bearer {issuer.sign()}"}
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        wait_until(lambda: issuer.fetches == 2, 30, "the fetch of each worker")
        for _ in range(10):
            response = gunicorn.client.get("/subject", headers=headers)
            assert (response.status_code, response.json()) == (200, SUBJECT)
        assert gunicorn.client.get("/subject").status_code == 401
    assert issuer.fetches == 2
