"""The workflows call what is there, pin what they use, and test the Pythons that are supported."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.checkout import PROJECT

WORKFLOWS = sorted(PROJECT.glob(".github/workflows/*.yml"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_make_target_that_a_workflow_calls_exists(workflow: Path) -> None:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    scripts = [step.get("run", "") for job in jobs for step in job["steps"]]
    calls = re.findall(r"^make (.+)$", "\n".join(scripts), re.MULTILINE)
    called = {word for call in calls for word in call.split() if "=" not in word}
    makefile = (PROJECT / "Makefile").read_text()
    assert called
    assert called <= set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_action_is_pinned_by_its_commit_and_names_its_version(workflow: Path) -> None:
    uses = re.findall(r"uses: .*", workflow.read_text())
    assert uses
    assert [use for use in uses if not PINNED.fullmatch(use)] == []


def test_every_python_from_the_oldest_supported_to_the_images_is_tested() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=3.")
    dockerfile = (PROJECT / "Dockerfile").read_text()
    (newest,) = re.findall(r"^ARG PYTHON_VERSION=3\.(\d+)\.", dockerfile, re.MULTILINE)
    ci = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())
    tested = ci["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert tested == [f"3.{minor}" for minor in range(int(oldest), int(newest) + 1)]
