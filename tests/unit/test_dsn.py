"""The database's URL on its way to the driver."""

import pytest

from fastapi_k8s.database import asyncpg_dsn
from tests.conftest import MakeSettings


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://db/name", "postgresql://db/name"),
        ("postgres://u:p%40ss@db:1/name?sslmode=require", None),
        ("postgresql://db/name?channel_binding=require", "postgresql://db/name"),
        ("postgresql://db/x?connect_timeout=3&sslmode=prefer", "postgresql://db/x?sslmode=prefer"),
    ],
)
def test_options_that_only_libpq_knows_are_left_out(
    make_settings: MakeSettings, given: str, used: str | None
) -> None:
    assert asyncpg_dsn(make_settings(database_url=given)) == (used or given)
