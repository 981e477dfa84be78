"""The Dockerfiles go by the same versions."""

import re

from tests.checkout import PROJECT


def versions(name: str) -> tuple[set[str], set[str]]:
    """The versions of Python and of uv that a Dockerfile names."""
    text = (PROJECT / name).read_text()
    python = re.findall(r"^ARG PYTHON_VERSION=(\S+)$", text, re.MULTILINE)
    return set(python), set(re.findall(r"astral-sh/uv:([\w.]+)", text))


def test_all_dockerfiles_have_the_same_python_and_the_same_uv() -> None:
    assert (
        versions("Dockerfile") == versions("Dockerfile.dev") == versions(".devcontainer/Dockerfile")
    )
    assert [len(each) for each in versions("Dockerfile")] == [1, 1]
