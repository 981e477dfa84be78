"""What every kind of test uses: settings, and the application behind a real HTTP server."""

import asyncio
import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from fastapi_k8s.main import create_app
from fastapi_k8s.observability.logs import JsonFormatter
from fastapi_k8s.settings import Settings
from tools.dev.servers import free_port

MakeSettings: TypeAlias = Callable[..., Settings]
Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
LogLines: TypeAlias = Callable[[], list[dict[str, Any]]]


class InProcessServer(uvicorn.Server):
    """Leaves the signals to pytest, and ends at once."""

    async def main_loop(self) -> None:
        self.end = asyncio.Event()
        await self.end.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the developer's shell do not reach the tests."""
    for name in Settings.model_fields:
        for spelling in {name, name.upper()} & set(os.environ):
            monkeypatch.delenv(spelling)


@pytest.fixture
def make_settings() -> MakeSettings:
    """Settings without a server behind them; keyword arguments replace."""

    def make(**given: Any) -> Settings:
        nowhere = f"postgresql://user:hidden@127.0.0.1:{free_port()}/name"
        return Settings(_env_file=None, **{"database_url": nowhere, **given})

    return make


@pytest.fixture
def serve() -> Serve:
    """Serve an application on a random port with its lifespan, and give a client for it."""

    @asynccontextmanager
    async def serving(app: FastAPI, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
        config = uvicorn.Config(
            app,
            port=0,
            root_path=root_path,
            log_config=None,
            access_log=False,
            http="httptools",
            timeout_graceful_shutdown=5,
        )
        server = InProcessServer(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            assert not task.done(), "the application did not start"
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield client
        finally:
            server.end.set()
            await task

    return serving


@pytest.fixture
async def client(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service; what its settings point to depends on the folder of the test."""
    async with serve(create_app(make_settings())) as client:
        yield client


@pytest.fixture
def log_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[LogLines]:
    """What the service has logged since the test began, as its own formatter writes it."""
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)  # not a terminal, though pytest's may be one
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(lambda record: not record.name.startswith("http"))  # the client's own
    caplog.set_level(logging.INFO)
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)
