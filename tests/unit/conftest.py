"""What the tests of several modules use."""

from pathlib import Path

import pytest

from fastapi_k8s import settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in which `secrets` stands for /run/secrets."""
    (tmp_path / "secrets").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "SECRETS_DIR", tmp_path / "secrets")
    return tmp_path
