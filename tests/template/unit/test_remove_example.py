"""Which migrations `make remove-example` keeps, and when it refuses to remove the example."""

from pathlib import Path

import pytest

from tools.checkout import run_command
from tools.template import remove_example
from tools.template.marks import remove_marked_from_file
from tools.template.tracked_files import read_texts


@pytest.fixture
def versions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the migrations with those of the template, in a repository."""
    versions = folder / "src" / "shop" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001_idempotency_keys.py").write_text('revision = "0001"\n')
    (versions / "0002_items.py").write_text('revision = "0002"\ndown_revision = "0001"\n')
    run_command(["git", "init", "--quiet"])
    monkeypatch.setattr(remove_example, "require_clean_checkout", lambda: None)
    return versions


def test_another_migration_with_items_in_its_name_is_kept(versions: Path) -> None:
    (versions / "0003_order_items.py").write_text('revision = "0003"\ndown_revision = "0001"\n')
    run_command(["git", "add", "."])
    remove_example.main()
    assert sorted(path.name[:4] for path in versions.iterdir()) == ["0001", "0003"]


@pytest.mark.usefixtures("repository")
def test_no_remaining_text_mentions_the_items() -> None:
    """The changelog may, because it describes what happened before."""
    for path, text in read_texts().items():
        if path.name == "CHANGELOG.md" or path.is_relative_to("tests/template"):
            continue
        # `make remove-example` writes the OpenAPI document again.
        if path.name == "openapi.json" or remove_example.is_example(path):
            continue
        remaining_text = remove_marked_from_file(path, text, "example")
        # `items` is also a field of Kubernetes' SecretVolumeSource.
        assert "/items" not in remaining_text.replace("/secret/items/", ""), path


def test_the_example_is_kept_if_a_migration_builds_on_it(versions: Path) -> None:
    (versions / "0003_books.py").write_text('revision = "0003"\ndown_revision = "0002"\n')
    run_command(["git", "add", "."])
    with pytest.raises(SystemExit, match=r"0003_books\.py builds on"):
        remove_example.main()
    assert (versions / "0002_items.py").exists()
