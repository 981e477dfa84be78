"""The command line of the make targets reports errors as messages."""

import json
import os
import subprocess
import sys

import pytest

from tests.unit.cluster.conftest import FakeCommands
from tools.checkout import PROJECT


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TIMEOUT": "soon"}, "TIMEOUT must be a number of seconds, not 'soon'."),
        ({"CONTEXT": ""}, "CONTEXT=staging"),
    ],
)
def test_an_error_is_a_message_without_a_traceback(
    commands: FakeCommands, variables: dict[str, str], message: str
) -> None:
    view = {"contexts": [{"name": "staging", "context": {"cluster": "staging"}}]}
    responses = {"current-context": "staging\n", "config view --minify": json.dumps(view)}
    commands.add_responses("kubectl", responses)
    completed = subprocess.run(
        [sys.executable, "-m", "tools.cluster", "status"],
        cwd=PROJECT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1
    assert message in completed.stderr
    assert "Traceback" not in completed.stderr
