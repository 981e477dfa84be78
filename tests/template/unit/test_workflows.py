"""The workflows call existing make targets, pin actions, and test all supported Python versions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.template.pages import read_targets
from tools.checkout import PROJECT

WORKFLOWS = sorted(PROJECT.glob(".github/workflows/*.yml"))
PINNED_ACTION = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")

each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)


def read_scripts(workflow: Path) -> list[str]:
    """Return the shell scripts that the steps of a workflow run."""
    scripts: list[str] = []
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        scripts.extend(step["run"] for step in job["steps"] if "run" in step)
    return scripts


@each_workflow
def test_every_make_target_that_a_workflow_calls_exists(workflow: Path) -> None:
    called_targets: set[str] = set()
    for script in read_scripts(workflow):
        for arguments in re.findall(r"^make (.+)$", script, re.MULTILINE):
            called_targets.update(word for word in arguments.split() if "=" not in word)
    assert called_targets
    assert called_targets <= read_targets()


@each_workflow
def test_every_action_is_pinned_to_a_commit_and_names_its_version(workflow: Path) -> None:
    actions = re.findall(r"uses: .*", workflow.read_text())
    assert actions
    assert [action for action in actions if not PINNED_ACTION.fullmatch(action)] == []


def test_ci_tests_every_python_from_the_oldest_supported_one_to_that_of_the_image_or_newer() -> (
    None
):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    oldest_minor = int(project["requires-python"].removeprefix(">=3."))
    dockerfile = (PROJECT / "Dockerfile").read_text()
    [image_version] = re.findall(r"^FROM python:(3\.\d+)", dockerfile, re.MULTILINE)
    tested_versions = read_tested_versions()
    assert tested_versions == [f"3.{oldest_minor + i}" for i in range(len(tested_versions))]
    assert image_version in tested_versions


def test_make_looks_for_every_tested_python_when_it_installs_uv() -> None:
    script = (PROJECT / "tools" / "dev" / "install-uv.sh").read_text()
    [names] = re.findall(r"^for name in python3 (.+); do$", script, re.MULTILINE)
    assert names.split() == [f"python{version}" for version in reversed(read_tested_versions())]


def read_tested_versions() -> list[str]:
    """Return the versions of Python on which CI runs the tests."""
    ci = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())
    return list(ci["jobs"]["tests"]["strategy"]["matrix"]["python"])
