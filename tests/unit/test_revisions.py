"""Migrations have consecutive numbers, because /ready compares revisions as text."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from fastapi_k8s.migrations import newest_revision


def read_migrations() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "fastapi_k8s:migrations")
    return ScriptDirectory.from_config(config)


def test_revisions_are_numbered_without_gaps_or_branches() -> None:
    migrations = list(read_migrations().walk_revisions())
    migrations.reverse()  # Alembic begins with the newest.
    numbers = [f"{number:04}" for number in range(1, len(migrations) + 1)]
    assert [migration.revision for migration in migrations] == numbers
    assert [migration.down_revision for migration in migrations] == [None, *numbers[:-1]]


def test_the_name_of_a_file_begins_with_its_revision() -> None:
    for migration in read_migrations().walk_revisions():
        assert Path(migration.path).name.startswith(f"{migration.revision}_")


def test_the_newest_revision_is_the_head_of_alembic() -> None:
    assert read_migrations().get_heads() == [newest_revision()]
