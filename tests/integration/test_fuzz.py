"""The service under Gunicorn responds to generated requests as its OpenAPI document says."""

import subprocess

from tests.conftest import MakeSettings
from tools.checkout import PROJECT
from tools.fuzz.run import schemathesis_command

from .test_server import process_environment, running_gunicorn


async def test_responses_to_generated_requests_are_as_documented(
    make_settings: MakeSettings,
) -> None:
    """All checks of Schemathesis, with the same requests each time. `make fuzz` sends others."""
    settings = make_settings()
    environment = process_environment(
        DATABASE_URL=settings.database_url.get_secret_value(),
        REDIS_URL=settings.redis_url.get_secret_value(),
        # A machine that is busy must not cause a 503.
        DATABASE_POOL_TIMEOUT="30",
        REQUEST_TIMEOUT="60",
    )
    with running_gunicorn(environment) as gunicorn:
        command = schemathesis_command(gunicorn.url, "--max-examples=25", "--seed=1")
        process = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=240, check=False
        )
    assert process.returncode == 0, process.stdout + process.stderr
