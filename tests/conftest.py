"""Fixtures of all tests: settings, and the application behind a real HTTP server."""

import asyncio
import contextlib
import io
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from fastapi_k8s import signing_keys
from fastapi_k8s.main import create_app
from fastapi_k8s.observability.logs import JsonFormatter
from fastapi_k8s.server.connections import HttpProtocolFactory
from fastapi_k8s.settings import Settings
from tests.docker_session import build_lock, checkout, docker, image, image_with_extras
from tests.issuer import Issuer, running_issuer
from tools.dev.servers import free_port

# Fixtures, which pytest finds here.
__all__ = ["build_lock", "checkout", "docker", "image", "image_with_extras"]

MakeSettings: TypeAlias = Callable[..., Settings]
Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
LogLines: TypeAlias = Callable[[], list[dict[str, Any]]]


class InProcessServer(uvicorn.Server):
    """Uvicorn without signal handlers, which would replace pytest's. It stops without a delay."""

    async def main_loop(self) -> None:
        self.stop_requested = asyncio.Event()
        await self.stop_requested.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def pytest_configure() -> None:
    """Stop processes and containers of the tests after SIGTERM too, as after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def bypass_proxy() -> None:
    """Connect to this machine directly, even if the developer's shell sets a proxy."""
    excluded_hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for variable in ("no_proxy", "NO_PROXY"):
        os.environ[variable] = f"{excluded_hosts},127.0.0.1,::1,localhost"


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The event loop of the image: it reports lost connections in other ways than asyncio's."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings in the environment of the developer's shell from the tests."""
    for variable in list(os.environ):
        if variable.lower() in Settings.model_fields or variable.startswith("OTEL_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def make_settings() -> MakeSettings:
    """A function that makes settings for an unreachable database and without a cache.

    Its keyword arguments are settings that replace these.
    """

    def make(**settings: Any) -> Settings:
        unreachable = f"postgresql://user:hidden@127.0.0.1:{free_port()}/name"
        return Settings(_env_file=None, **{"database_url": unreachable, **settings})

    return make


@pytest.fixture
def serve() -> Serve:
    """A function that serves an application on a random port, and yields a client for it.

    Its keyword arguments are options of Uvicorn.
    """

    @asynccontextmanager
    async def serve_app(app: FastAPI, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        defaults = {"http": HttpProtocolFactory(), "log_config": None, "access_log": False}
        options = {**defaults, "port": 0, "timeout_graceful_shutdown": 5, **options}
        config = uvicorn.Config(app, **options)
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
            server.stop_requested.set()
            await task

    return serve_app


@pytest.fixture
async def client(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application. Each folder of tests has its own `make_settings`."""
    async with serve(create_app(make_settings())) as client:
        yield client


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """An issuer of access tokens, on this machine, which may be busy: the timeouts are long."""
    monkeypatch.setattr(signing_keys, "FETCH_WAIT_SECONDS", 20)
    monkeypatch.setattr(signing_keys, "SOCKET_TIMEOUT_SECONDS", 20)
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Iterator[LogLines]:
    """A function that returns the application's log lines since the start of the test."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonFormatter())
    # httpx and httpcore, the client of the tests, log too.
    handler.addFilter(lambda record: not record.name.startswith("http"))
    caplog.set_level(logging.INFO)
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)
