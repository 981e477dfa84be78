"""The numbering of the migrations, which readiness compares."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from fastapi_k8s.migrations import newest_revision


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "fastapi_k8s:migrations")
    return ScriptDirectory.from_config(config)


def test_revisions_are_numbered_without_a_gap_or_a_fork() -> None:
    revisions = list(scripts().walk_revisions())[::-1]
    numbers = [f"{number:04}" for number in range(1, len(revisions) + 1)]
    assert [each.revision for each in revisions] == numbers
    assert [each.down_revision for each in revisions] == [None, *numbers[:-1]]


def test_a_file_is_named_after_its_revision() -> None:
    for each in scripts().walk_revisions():
        assert Path(each.path).name.startswith(f"{each.revision}_")


def test_the_newest_revision_is_the_one_that_alembic_upgrades_to() -> None:
    assert scripts().get_heads() == [newest_revision()]
