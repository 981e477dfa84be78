"""The items that are asked for."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg

ITEMS = 100_000
"""More than can be asked for in a round, so that each is asked for once."""

INSERT = """
INSERT INTO items (name, description)
SELECT 'Lamp', 'For the desk.' FROM generate_series(1, $1) RETURNING id
"""


@dataclass(frozen=True)
class Data:
    """A database at `url`, the path of one of its items, and a file with the ids of all."""

    url: str
    item: str
    ids: Path


def prepare(url: str, folder: Path) -> Data:
    """Migrate the empty database at `url`, and fill it."""
    migrate = [str(Path(sys.executable).parent / "fastapi-k8s"), "migrate"]
    subprocess.run(migrate, env={"DATABASE_URL": url}, cwd=folder, stdout=sys.stderr, check=True)
    found = asyncio.run(_insert(url))
    ids = folder / "ids"
    ids.write_text("\n".join(found))
    return Data(url, f"/items/{found[0]}", ids)


async def _insert(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(INSERT, ITEMS)
    await connection.close()
    return [str(row["id"]) for row in rows]
