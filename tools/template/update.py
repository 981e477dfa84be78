"""`make update`: take the changes of the template since the version that this service is based on.

Both versions of the template get the name of this service, and lose the example if this service has
removed it. Then the difference between them is cherry-picked. So git merges it with the changes of
the service, and a conflict is a conflict between the two.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi_k8s import NAME

from .tracked_files import require_clean_checkout, run_git

BASE_FILE = Path(".template-version")
"""Contains the id of the template's commit that the service is based on. Each update writes it."""

REMOTE = "template"
REMOVE_EXAMPLE = Path("tools/template/remove_example.py")
"""The command that removes the example, and itself with it."""

MESSAGE = "Update to the template of {date}\n\n{changes}"

CONFLICTS = """
Both the template and the service have changed the files that git lists as conflicts.
Resolve them, and then run: git add --all && git cherry-pick --continue
To go back to the state before the update, run: git cherry-pick --abort"""


def main() -> None:
    """Commit the changes of the template, leave conflicts to git, or exit with a reason."""
    require_clean_checkout()
    new_version = fetch_template()
    old_version = find_base(new_version)
    if old_version == new_version:
        print("The service has the newest version of the template already.")
        return
    change = commit_difference(old_version, new_version)
    if subprocess.run(["git", "cherry-pick", change], check=False).returncode != 0:
        sys.exit(CONFLICTS)
    print("The service is updated. Check it with `make lint && make test`.")


def fetch_template() -> str:
    """Fetch the default branch of the template, and return the id of its newest commit."""
    template = os.environ.get("TEMPLATE") or REMOTE
    if template == REMOTE and REMOTE not in run_git("remote").split():
        sys.exit(
            "The repository of the template is not known."
            " Name it: make update TEMPLATE=https://example.com/the-template.git,"
            f" or add it as the remote `{REMOTE}`. Nothing was changed."
        )
    run_git("fetch", "--quiet", "--no-tags", template, "HEAD")
    return run_git("rev-parse", "FETCH_HEAD").strip()


def find_base(new_version: str) -> str:
    """Return the id of the template's commit that this service is based on.

    Before its first update, this is the newest version of the template with exactly the files of a
    commit of the service. A repository that GitHub makes from a template begins with such a commit,
    although the two have no common history.
    """
    versions = run_git("log", "--format=%H %T", new_version).splitlines()
    trees_of_versions = dict(line.split() for line in versions)
    if BASE_FILE.exists():
        base = BASE_FILE.read_text().strip()
        if base not in trees_of_versions:
            sys.exit(f"The template has no commit {base!r}, see {BASE_FILE}. Nothing was changed.")
        return base
    trees_of_service = set(run_git("log", "--format=%T").splitlines())
    for version, tree in trees_of_versions.items():
        if tree in trees_of_service:
            return version
    sys.exit(
        "No commit of this repository has the files of a version of the template."
        f" Write the id of the template's commit that the service was made from to {BASE_FILE},"
        " and commit this file. Nothing was changed."
    )


def commit_difference(old_version: str, new_version: str) -> str:
    """Return the id of a commit that changes the old version of the template into the new one.

    The commit is on no branch. In both versions the service has its name, and the example only if
    this service has it.
    """
    with TemporaryDirectory() as folder:
        old_tree = write_tree(Path(folder, "old"), old_version, has_base_file=BASE_FILE.exists())
        new_tree = write_tree(Path(folder, "new"), new_version, has_base_file=True)
    base = run_git("commit-tree", "-m", f"Template {old_version}", old_tree).strip()
    date = run_git("log", "-1", "--format=%cs", new_version).strip()
    changes = run_git("log", "--reverse", "--format=- %s", f"{old_version}..{new_version}")
    message = MESSAGE.format(date=date, changes=changes)
    return run_git("commit-tree", "-p", base, "-m", message, new_tree).strip()


def write_tree(folder: Path, version: str, has_base_file: bool) -> str:
    """Return the id of a git tree with the files that this service would have in a version."""
    run_git("worktree", "add", "--quiet", "--detach", str(folder), version)
    try:
        project = tomllib.loads(Path(folder, "pyproject.toml").read_text())["project"]
        if project["name"] != NAME:
            make(folder, "rename", f"NAME={NAME}")
        if Path(folder, REMOVE_EXAMPLE).exists() and not REMOVE_EXAMPLE.exists():
            commit_all(folder)  # The command refuses uncommitted changes.
            make(folder, "remove-example")
        if has_base_file:
            Path(folder, BASE_FILE).write_text(f"{version}\n")
        commit_all(folder)
        return run_git("-C", str(folder), "rev-parse", "HEAD^{tree}").strip()
    finally:
        run_git("worktree", "remove", "--force", str(folder))


def make(folder: Path, *arguments: str) -> None:
    """Run make in a version of the template. Exit with its output if it fails."""
    environment = os.environ.copy()
    for name in ("MAKEFLAGS", "MAKELEVEL", "VIRTUAL_ENV"):
        environment.pop(name, None)  # They belong to this service.
    # `uv run` sets UV. Without it in PATH, make would install uv in each folder.
    environment["PATH"] = f"{Path(environment['UV']).parent}{os.pathsep}{environment['PATH']}"
    # One environment for both versions. It may be set, to that of this service.
    environment["UV_PROJECT_ENVIRONMENT"] = str(folder.parent / "environment")
    process = subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        sys.exit(
            f"{process.stdout}`make {' '.join(arguments)}` fails in the template."
            " Nothing was changed."
        )


def commit_all(folder: Path) -> None:
    """Commit everything in a worktree, without the hooks and the signature of other commits."""
    run_git("-C", str(folder), "add", "--all")
    options = ["--quiet", "--allow-empty", "--no-verify", "--no-gpg-sign"]
    run_git("-C", str(folder), "commit", *options, "--message", "Prepare the template")


if __name__ == "__main__":
    main()
