"""The files and the configuration of the production image, and how its build behaves."""

import base64
import csv
import hashlib
import json
import re
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from python_on_whales import DockerClient

from fastapi_k8s import NAME
from tests.container.conftest import RunApplication
from tests.docker_session import LABELS, SESSION_NAME, BuildLock
from tools.checkout import run_command

SITE_PACKAGES = "app/.venv/lib/python3.14/site-packages"

FIND_WRITABLE_PATHS = """
import os
for folder, _, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys", "/dev", "/tmp")):
        continue
    for path in [folder, *[os.path.join(folder, name) for name in files]]:
        if not os.path.islink(path) and os.access(path, os.W_OK):
            print(path)
"""

FIND_WRITABLE_FOLDERS = """
for folder in "/ /app /etc /usr /var /app/.venv /tmp /dev/shm".split():
    try:
        open(folder + "/new", "w")
        print(folder)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def archive(docker: DockerClient, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files as a tar archive."""
    path = tmp_path_factory.mktemp("archive") / "root.tar"
    export_image(docker, image, path)
    return path


@pytest.fixture(scope="module")
def root(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the image's files."""
    folder = tmp_path_factory.mktemp("root")
    extract(archive, folder)
    return folder


def export_image(docker: DockerClient, image: str, archive: Path) -> None:
    """Write an image's files to a tar archive."""
    container = docker.container.create(image, labels=LABELS)
    docker.container.export(container, archive)
    container.remove()


def extract(archive: Path, folder: Path) -> None:
    """Extract a tar archive into a folder."""
    run_command(["tar", "--extract", f"--directory={folder}", f"--file={archive}"])
    # Otherwise only root could remove the folder.
    run_command(["chmod", "--recursive", "u+w", str(folder)])


@pytest.fixture(scope="module")
def config(docker: DockerClient, image: str) -> dict[str, Any]:
    """The image's configuration."""
    [image_data] = json.loads(run_command(["docker", "image", "inspect", image]))
    config: dict[str, Any] = image_data["Config"]
    return config


def test_the_labels_describe_the_image(config: dict[str, Any]) -> None:
    prefix = "org.opencontainers.image."
    labels = {
        name.removeprefix(prefix): value
        for name, value in config["Labels"].items()
        if name.startswith(prefix)
    }
    assert labels == {
        "title": NAME,
        "description": "A small FastAPI service on PostgreSQL and Redis",
        "version": "1.2.3",
        "revision": "0123abc",
        "source": "https://example.com/service",
        "created": "2026-01-02T03:04:05Z",
        "licenses": "MIT",
    }


def test_the_command_is_gunicorn_without_a_shell_and_the_stop_signal_is_sigterm(
    config: dict[str, Any],
) -> None:
    assert config["Cmd"] == ["gunicorn", "-c", "python:fastapi_k8s.server"]
    assert config.get("Entrypoint") is None
    assert config.get("StopSignal") is None  # Docker's default is SIGTERM.


def test_the_process_is_unprivileged_and_its_root_is_read_only(
    run_application: RunApplication,
) -> None:
    with run_application() as application:
        lines = application.run_python("print(open('/proc/1/status').read())").splitlines()
        status = dict(line.split(":\t") for line in lines if ":\t" in line)
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        for capabilities in ("CapEff", "CapPrm", "CapBnd", "CapInh"):
            assert int(status[capabilities], base=16) == 0
        assert status["NoNewPrivs"] == "1"
        writable = application.run_python(FIND_WRITABLE_FOLDERS)
        assert writable.split() == ["/tmp", "/dev/shm"]


def test_the_user_can_write_no_file_even_without_a_read_only_root(
    run_application: RunApplication,
) -> None:
    with run_application(read_only=False, tmpfs=[]) as application:
        assert application.run_python(FIND_WRITABLE_PATHS) == ""


def test_every_file_belongs_to_root(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        owners = {(member.uid, member.gid) for member in tar}
    assert owners == {(0, 0)}


def test_every_user_may_read_every_file(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        unreadable_names = [
            member.name
            for member in tar
            if not member.mode & stat.S_IROTH or (member.isdir() and not member.mode & stat.S_IXOTH)
        ]
    assert unreadable_names == []


def test_the_image_has_no_shell_no_tools_no_tests_and_no_source_tree(root: Path) -> None:
    programs = {path.name for path in [*root.glob("**/bin/*"), *root.glob("**/sbin/*")]}
    shells = {"sh", "bash", "busybox"}
    build_tools = {"uv", "uvx", "pip", "pip3", "gcc", "cc", "ld", "strip", "git"}
    system_tools = {"curl", "wget", "apt", "apt-get", "dpkg", "tar"}
    assert programs & (shells | build_tools | system_tools) == set()
    packages = {path.name for path in (root / SITE_PACKAGES).iterdir()}
    assert packages & {"pip", "pytest", "mypy", "debugpy", "httpx", "setuptools"} == set()
    assert {path.name for path in (root / "app").iterdir()} == {".venv", "healthcheck.py"}
    assert list(root.rglob("uv.lock")) == []
    assert list(root.rglob(".git")) == []


def test_the_standard_library_and_the_application_are_compiled(root: Path) -> None:
    for folder in (root / "usr/local/lib/python3.14", root / SITE_PACKAGES / "fastapi_k8s"):
        sources = {path.stem for path in folder.glob("*.py")}
        compiled_modules = {
            path.name.partition(".")[0] for path in folder.glob("__pycache__/*.pyc")
        }
        assert sources
        assert sources <= compiled_modules


def test_the_records_of_the_python_packages_match_their_files(root: Path) -> None:
    records = list((root / SITE_PACKAGES).glob("*.dist-info/RECORD"))
    assert len(records) > 20
    for record in records:
        for name, recorded_hash, size in csv.reader(record.read_text().splitlines()):
            if recorded_hash:
                content = (root / SITE_PACKAGES / name).read_bytes()
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
                assert recorded_hash == f"sha256={digest.decode()}", name
                assert size == str(len(content)), name


def test_the_records_of_the_debian_packages_match_their_files(root: Path) -> None:
    """A scanner can assign every shared library of the system to a package."""
    records = root / "var/lib/dpkg/status.d"
    recorded_files = set()
    for sums in records.glob("*.md5sums"):
        package = sums.name.removesuffix(".md5sums")
        status = (records / package).read_text()
        assert f"Package: {package}\n" in status
        assert "\nVersion: " in status
        for line in sums.read_text().splitlines():
            digest, name = line.split("  ")
            assert hashlib.md5((root / name).read_bytes()).hexdigest() == digest
            recorded_files.add((root / name).resolve())
    system_libraries = {path.resolve() for path in root.glob("usr/lib/**/*.so*") if path.is_file()}
    assert len(system_libraries) > 5
    assert system_libraries <= recorded_files
    assert "ID=debian" in (root / "etc/os-release").read_text()


def test_two_builds_without_a_cache_produce_the_same_files(
    docker: DockerClient, checkout: Path, archive: Path, tmp_path: Path, build_lock: BuildLock
) -> None:
    tag = f"{SESSION_NAME}-again"
    with build_lock():
        docker.build(checkout, cache=False, labels=LABELS, tags=tag, progress=False)
    export_image(docker, tag, tmp_path / "again.tar")
    assert hash_files(tmp_path / "again.tar") == hash_files(archive)


def hash_files(archive: Path) -> dict[PurePosixPath, str]:
    """Return the hash of each file in a tar archive, and the target of each link."""
    hashes = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if member.issym() or member.islnk():
                hashes[name] = member.linkname
            elif member.isfile():
                file = tar.extractfile(member)
                assert file
                hashes[name] = hashlib.sha256(file.read()).hexdigest()
    return hashes


@pytest.mark.usefixtures("image")
def test_a_build_after_an_edit_includes_it_and_reuses_the_dependencies(
    checkout: Path, tmp_path: Path, build_lock: BuildLock
) -> None:
    edited_checkout = shutil.copytree(checkout, tmp_path / "edited")
    with (edited_checkout / "src/fastapi_k8s/health.py").open("a") as file:
        file.write(f"# {tmp_path}\n")
    tag = f"{SESSION_NAME}-edited"
    with build_lock():
        log = run_build(edited_checkout, "--progress=plain", f"--tag={tag}").stderr

    module = f"/{SITE_PACKAGES}/fastapi_k8s/health.py"
    print_source = f"print(open('{module}').read())"
    source = run_command(["docker", "run", "--rm", tag, "python", "-c", print_source])
    assert str(tmp_path) in source

    # A step is identified by an option that only its command has.
    step_pattern = r"^(#\d+) \[(?:dependencies|build) .*(--no-(?:install|editable)[\w-]*)"
    steps = re.findall(step_pattern, log, re.MULTILINE)
    cached_steps = re.findall(r"^(#\d+) CACHED$", log, re.MULTILINE)
    assert {option: step in cached_steps for step, option in steps} == {
        "--no-install-recommends": True,
        "--no-install-project": True,
        "--no-editable": False,
    }


def run_build(context: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Build the production image, which may fail."""
    labels = [f"--label={name}={value}" for name, value in LABELS.items()]
    command = ["docker", "build", *labels, *flags, str(context)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("src/fastapi_k8s/main.py", "import tkinter", "No module named 'tkinter'"),
        ("pyproject.toml", "[project.optional-dependencies]\nx = ['rich']", "uv.lock"),
    ],
    ids=["an import of an excluded module", "an outdated lock file"],
)
@pytest.mark.usefixtures("image")
def test_the_build_fails_because_of(
    checkout: Path, tmp_path: Path, file: str, line: str, message: str
) -> None:
    broken_checkout = shutil.copytree(checkout, tmp_path / "broken")
    with (broken_checkout / file).open("a") as source:
        source.write(f"{line}\n")
    process = run_build(broken_checkout)
    assert process.returncode != 0
    assert message in process.stderr


def test_the_build_context_excludes_secrets_history_and_tests(
    docker: DockerClient, checkout: Path, tmp_path: Path
) -> None:
    context = shutil.copytree(checkout, tmp_path / "context")
    for name in (".env", "src/.env", ".git/config", "src/fastapi_k8s/__pycache__/x.pyc", "id_rsa"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("secret")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY . /\n")
    copied_folder = tmp_path / "copied"
    docker.build(context, file=dockerfile, output={"type": "local", "dest": str(copied_folder)})

    top_level = {path.name for path in copied_folder.iterdir()}
    assert top_level == {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "tools", "src"}
    names = [str(path.relative_to(copied_folder)) for path in copied_folder.rglob("*")]
    assert [name for name in names if ".env" in name or "__pycache__" in name] == []
    assert {path.name for path in (copied_folder / "tools").iterdir()} == {"dev", "image"}
    assert [path.name for path in (copied_folder / "tools/dev").iterdir()] == ["reload.py"]
    assert {path.suffix for path in (copied_folder / "tools/image").iterdir()} == {".py"}


def test_the_development_stage_has_a_shell_a_debugger_and_the_same_user(
    docker: DockerClient, checkout: Path, run_application: RunApplication
) -> None:
    tag = f"{SESSION_NAME}-development"
    docker.build(checkout, target="development", labels=LABELS, tags=tag, progress=False)
    with run_application(tag=tag) as application:
        script = "id -u && cat src/*/main.py && python -c 'import debugpy'"
        output = application.container.execute(["sh", "-c", script])
        assert str(output).startswith("10001\n")
