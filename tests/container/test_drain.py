"""SIGTERM under load, on the image as it ships."""

import asyncio

import pytest

from tests.container.conftest import Serve
from tools.benchmarks.load_generator import steady_load

DRAIN = 1.0
ROUNDS = 10


@pytest.mark.usefixtures("image")
async def test_sigterm_under_load_loses_none_of_the_requests_sent_before_the_drain_ends(
    serve: Serve,
) -> None:
    """On new connections and on those kept alive, in ten rounds; and the exit code is 0."""
    for _ in range(ROUNDS):
        with serve({"DRAIN_SECONDS": str(DRAIN)}) as service:
            url = str(service.client.base_url.join("/version"))
            async with steady_load(url, clients=8, pause=0.01) as load:
                await asyncio.sleep(0.5)
                stopping = asyncio.create_task(asyncio.to_thread(service.container.stop, 40))
                await asyncio.sleep(DRAIN)
            await stopping
            assert load.failures == []
            assert service.container.state.exit_code == 0
            assert load.sent > 100
