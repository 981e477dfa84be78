"""Readiness, with a database that answers as the test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from fastapi_k8s import readiness as module
from fastapi_k8s.cache import Cache
from fastapi_k8s.database import Database, DatabaseUnavailableError
from fastapi_k8s.readiness import Readiness


class FakeDatabase:
    """Its schema is at `revision`; `answers` is whether it does, `reachable` whether it is."""

    def __init__(self, revision: str | None = "0002") -> None:
        self.revision = revision
        self.reachable = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["FakeDatabase"]:
        self.asked += 1
        if not self.reachable:
            raise DatabaseUnavailableError from OSError("postgresql://user:hidden@db")
        yield self

    async def fetchval(self, _: str) -> str | None:
        await self.answers.wait()
        return self.revision


class HangingCache(Cache):
    async def status(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError


def readiness(database: FakeDatabase, cache: Cache | None = None) -> Readiness:
    return Readiness(cast("Database", database), cache or Cache(None, ttl_seconds=1), "0002")


@pytest.mark.parametrize(
    ("revision", "found"),
    [
        ("0002", "ok"),
        ("0003", "ok"),
        ("0010", "ok"),
        ("0001", "behind"),
        (None, "behind"),
    ],
)
async def test_a_schema_of_this_release_or_a_newer_one_is_ready(
    revision: str | None, found: str
) -> None:
    report = await readiness(FakeDatabase(revision)).report()
    assert report.checks["database"] == found
    assert report.status == ("ready" if found == "ok" else "unready")


async def test_an_unreachable_database_makes_unready() -> None:
    database = FakeDatabase()
    database.reachable = False
    report = await readiness(database).report()
    assert (report.status, report.checks["database"]) == ("unready", "unreachable")
    assert "hidden" not in report.model_dump_json()


async def test_concurrent_callers_share_one_check() -> None:
    database = FakeDatabase()
    asked = readiness(database)
    reports = await asyncio.gather(*(asked.report() for _ in range(20)))
    assert {report.status for report in reports} == {"ready"}
    assert database.asked == 1


async def test_a_report_is_kept_for_its_age_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    database = FakeDatabase()
    asked = readiness(database)
    assert (await asked.report()).status == "ready"
    database.reachable = False
    now += module.REPORT_SECONDS * 0.9
    assert (await asked.report()).status == "ready"
    now += module.REPORT_SECONDS * 0.2
    assert (await asked.report()).status == "unready"
    assert database.asked == 2


async def test_a_database_that_hangs_is_unready_after_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHECK_TIMEOUT", 0.01)
    database = FakeDatabase()
    database.answers.clear()
    async with asyncio.timeout(10):
        report = await readiness(database).report()
    assert (report.status, report.checks["database"]) == ("unready", "timeout")


async def test_a_cache_that_hangs_does_not_make_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_TIMEOUT", 0.01)
    async with asyncio.timeout(10):
        report = await readiness(FakeDatabase(), HangingCache(None, ttl_seconds=1)).report()
    assert (report.status, report.checks["cache"]) == ("ready", "timeout")
