"""Graceful shutdown of the production image under load."""

import asyncio

import pytest

from tests.container.conftest import RunApplication
from tools.benchmarks.load_generator import steady_load

DRAIN_SECONDS = 1.0
ROUNDS = 10


@pytest.mark.usefixtures("image")
async def test_sigterm_under_load_loses_no_request_that_is_sent_before_the_drain_ends(
    run_application: RunApplication,
) -> None:
    """Half of the clients keep their connections alive, half open one for each request."""
    for _ in range(ROUNDS):
        with run_application({"DRAIN_SECONDS": str(DRAIN_SECONDS)}) as application:
            url = str(application.client.base_url.join("/version"))
            async with steady_load(url, clients=8, pause_seconds=0.01) as load:
                await asyncio.sleep(0.5)
                stop = asyncio.create_task(asyncio.to_thread(application.container.stop, 40))
                await asyncio.sleep(DRAIN_SECONDS)
            await stop
            assert load.failures == []
            assert application.container.state.exit_code == 0
            assert load.request_count > 100
