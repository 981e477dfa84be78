"""The values in Gunicorn's configuration that depend on the machine."""

import tempfile
from pathlib import Path

import pytest

from fastapi_k8s import server
from fastapi_k8s.server.worker import STOP_SECONDS
from fastapi_k8s.settings import Settings


@pytest.mark.parametrize(
    ("bindv6only", "address"), [("0\n", "[::]:80"), ("1\n", "0.0.0.0:80"), (None, "0.0.0.0:80")]
)
def test_it_listens_on_ipv6_if_the_socket_accepts_ipv4_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bindv6only: str | None, address: str
) -> None:
    file = tmp_path / "bindv6only"
    if bindv6only is not None:
        file.write_text(bindv6only)
    monkeypatch.setattr(server, "BINDV6ONLY", file)
    assert server.all_interfaces("80") == address


def test_without_shared_memory_it_uses_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SHARED_MEMORY", tmp_path / "missing")
    assert server.find_worker_tmp_dir() == tempfile.gettempdir()


def test_without_a_writable_folder_it_exits_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SHARED_MEMORY", tmp_path / "missing")
    # gettempdir() returns the first of these candidates that is writable.
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(SystemExit, match="no writable folder for temporary files"):
        server.find_worker_tmp_dir()


def test_the_master_waits_longer_than_a_worker_with_the_longest_drain_may_take() -> None:
    [limit] = [
        each for each in Settings.model_fields["drain_seconds"].metadata if hasattr(each, "le")
    ]
    assert server.graceful_timeout > limit.le + STOP_SECONDS + 1
