"""Fixtures of the tests of single modules."""

from pathlib import Path

import pytest

from fastapi_k8s import settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory. Its folder `secrets` replaces /run/secrets."""
    (tmp_path / "secrets").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "SECRETS_DIR", tmp_path / "secrets")
    return tmp_path
