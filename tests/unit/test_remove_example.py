"""What `make remove-example` leaves alone."""

from pathlib import Path

import pytest

from tests.checkout import output
from tools.template import remove_example


@pytest.fixture
def versions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the migrations, with those of the template, in a repository."""
    made = folder / "src" / "shop" / "migrations" / "versions"
    made.mkdir(parents=True)
    (made / "0001_idempotency_keys.py").write_text('revision = "0001"\n')
    (made / "0002_items.py").write_text('revision = "0002"\ndown_revision = "0001"\n')
    output(["git", "init", "--quiet"])
    monkeypatch.setattr(remove_example, "refuse_uncommitted", lambda: None)
    return made


def test_another_migration_that_speaks_of_items_stays(versions: Path) -> None:
    (versions / "0003_order_items.py").write_text('revision = "0003"\ndown_revision = "0001"\n')
    output(["git", "add", "."])
    remove_example.main()
    assert sorted(path.name[:4] for path in versions.iterdir()) == ["0001", "0003"]


def test_the_items_stay_if_a_migration_builds_on_theirs(versions: Path) -> None:
    (versions / "0003_books.py").write_text('revision = "0003"\ndown_revision = "0002"\n')
    output(["git", "add", "."])
    with pytest.raises(SystemExit, match=r"0003_books\.py builds on"):
        remove_example.main()
    assert (versions / "0002_items.py").exists()
