"""The command line program refuses an unknown or a missing subcommand."""

import sys

import pytest

from fastapi_k8s import NAME, cli


@pytest.mark.parametrize("arguments", [[], ["unknown"]], ids=["no subcommand", "unknown"])
def test_without_a_valid_subcommand_the_exit_code_is_2_and_the_subcommands_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [NAME, *arguments])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    usage, error = captured.err.splitlines()
    assert usage.startswith(f"usage: {NAME} ")
    assert error.startswith(f"{NAME}: error: ")
    assert "migrate" in error
