"""How /ready judges the database and the cache, and how long a report is shared."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from fastapi_k8s import readiness as readiness_module
from fastapi_k8s.cache import Cache
from fastapi_k8s.database import Database, DatabaseUnavailableError
from fastapi_k8s.readiness import REPORT_SECONDS, Readiness

NEEDED_REVISION = "0002"


class FakeDatabase:
    """A database whose schema is at `revision`. It can fail in every way that is checked."""

    def __init__(self, revision: str | None = NEEDED_REVISION) -> None:
        self.revision = revision
        self.reachable = True
        self.read_only = False
        self.hangs = False
        self.connections = 0
        self.expirations = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["FakeDatabase"]:
        self.connections += 1
        if not self.reachable:
            raise DatabaseUnavailableError from OSError("postgresql://user:hidden@db")
        yield self

    async def fetchrow(self, _: str) -> dict[str, object] | None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.revision is None:
            return None
        return {"version_num": self.revision, "is_read_only": self.read_only}

    @property
    def pool(self) -> "FakeDatabase":
        return self

    def expire(self, _: object) -> None:
        self.expirations += 1


class HangingCache(Cache):
    async def status(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError


def make_readiness(database: FakeDatabase, cache: Cache | None = None) -> Readiness:
    """The checks of `database` and of `cache`, which is by default disabled."""
    if cache is None:
        cache = Cache(None, ttl_seconds=1)
    return Readiness(cast("Database", database), cache, NEEDED_REVISION)


@pytest.mark.parametrize("revision", ["0002", "0003", "0010"])
async def test_the_revision_of_this_release_or_a_newer_one_is_ready(revision: str) -> None:
    report = await make_readiness(FakeDatabase(revision)).report()
    assert (report.status, report.checks["database"]) == ("ready", "ok")


@pytest.mark.parametrize("revision", ["0001", None])
async def test_an_older_revision_or_none_is_unready(revision: str | None) -> None:
    report = await make_readiness(FakeDatabase(revision)).report()
    assert (report.status, report.checks["database"]) == ("unready", "behind")


async def test_an_unreachable_database_is_unready() -> None:
    database = FakeDatabase()
    database.reachable = False
    report = await make_readiness(database).report()
    assert (report.status, report.checks["database"]) == ("unready", "unreachable")
    assert "hidden" not in report.model_dump_json()


async def test_a_read_only_database_is_unready_and_the_next_check_connects_again() -> None:
    database = FakeDatabase()
    database.read_only = True
    report = await make_readiness(database).report()
    assert (report.status, report.checks["database"]) == ("unready", "read-only")
    assert database.expirations == 1


async def test_concurrent_callers_share_one_check() -> None:
    database = FakeDatabase()
    readiness = make_readiness(database)
    reports = await asyncio.gather(*[readiness.report() for _ in range(20)])
    assert {report.status for report in reports} == {"ready"}
    assert database.connections == 1


async def test_a_report_is_shared_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(readiness_module, "monotonic", lambda: now)
    database = FakeDatabase()
    readiness = make_readiness(database)
    assert (await readiness.report()).status == "ready"
    database.reachable = False
    now += REPORT_SECONDS * 0.9
    assert (await readiness.report()).status == "ready"
    now += REPORT_SECONDS * 0.2
    assert (await readiness.report()).status == "unready"
    assert database.connections == 2


async def test_a_database_that_hangs_is_unready_after_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness_module, "CHECK_TIMEOUT_SECONDS", 0.01)
    database = FakeDatabase()
    database.hangs = True
    async with asyncio.timeout(10):
        report = await make_readiness(database).report()
    assert (report.status, report.checks["database"]) == ("unready", "timeout")


async def test_a_cache_that_hangs_is_reported_and_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness_module, "CHECK_TIMEOUT_SECONDS", 0.01)
    readiness = make_readiness(FakeDatabase(), HangingCache(None, ttl_seconds=1))
    async with asyncio.timeout(10):
        report = await readiness.report()
    assert (report.status, report.checks["cache"]) == ("ready", "timeout")
