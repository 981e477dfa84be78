"""The service under Gunicorn responds to generated requests as its OpenAPI document says."""

import subprocess
from pathlib import Path
from time import time
from typing import Any

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings
from tests.issuer import AUDIENCE, Issuer
from tools.checkout import PROJECT
from tools.fuzz.run import CONFIG_FILE, schemathesis_command

from .test_server import process_environment, running_gunicorn


async def test_responses_to_generated_requests_are_as_documented(
    make_settings: MakeSettings,
) -> None:
    """All checks of Schemathesis, with the same requests each time. `make fuzz` sends others."""
    run_schemathesis(make_environment(make_settings), examples=25)


async def test_responses_are_as_documented_with_authentication(
    make_settings: MakeSettings, issuer: Issuer, tmp_path: Path
) -> None:
    """Without a valid token, Schemathesis accepts only 401 from operations that require one."""
    settings = make_settings(jwt_issuer=issuer.url, jwt_audience=AUDIENCE)
    scopes = find_scopes(create_app(settings).openapi())
    token = issuer.sign(exp=int(time()) + 3600, scope=" ".join(scopes))
    config_file = tmp_path / "schemathesis.toml"
    authentication = f'\n[auth.openapi.bearer]\nbearer = "{token}"\n'
    config_file.write_text(CONFIG_FILE.read_text() + authentication)
    environment = make_environment(make_settings)
    environment |= {"JWT_ISSUER": issuer.url, "JWT_AUDIENCE": AUDIENCE}
    run_schemathesis(environment, examples=5, config_file=config_file)


def find_scopes(document: dict[str, Any]) -> set[str]:
    """The scopes that the operations of an OpenAPI document require."""
    scopes: set[str] = set()
    for operations in document["paths"].values():
        for operation in operations.values():
            for requirement in operation.get("security", []):
                scopes.update(requirement["bearer"])
    return scopes


def make_environment(make_settings: MakeSettings) -> dict[str, str]:
    """The variables of a service with its own database."""
    settings = make_settings()
    return process_environment(
        DATABASE_URL=settings.database_url.get_secret_value(),
        REDIS_URL=settings.redis_url.get_secret_value(),
        # A machine that is busy must not cause a 503.
        DATABASE_POOL_TIMEOUT="30",
        REQUEST_TIMEOUT="60",
    )


def run_schemathesis(
    environment: dict[str, str], examples: int, config_file: Path = CONFIG_FILE
) -> None:
    """Run the service and Schemathesis, which must report no failure."""
    options = (f"--max-examples={examples}", "--seed=1")
    with running_gunicorn(environment) as gunicorn:
        command = schemathesis_command(gunicorn.url, *options, config_file=config_file)
        process = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=240, check=False
        )
    assert process.returncode == 0, process.stdout + process.stderr
