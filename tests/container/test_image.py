"""What is in the image, what is not, and that its build says no to what cannot run."""

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from python_on_whales import DockerClient

from fastapi_k8s import NAME
from tests.checkout import output
from tests.container.conftest import LABELS, RUN, Alone, Serve

SITE = "app/.venv/lib/python3.14/site-packages"


@pytest.fixture(scope="module")
def root(docker: DockerClient, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files, unpacked."""
    return unpack(docker, image, tmp_path_factory.mktemp("root"))


def unpack(docker: DockerClient, image: str, folder: Path) -> Path:
    """Unpack an image's files below `folder`."""
    container = docker.container.create(image, labels=LABELS)
    folder.mkdir(exist_ok=True)
    archive = folder.parent / f"{folder.name}.tar"
    docker.container.export(container, archive)
    container.remove()
    output(["tar", "--extract", f"--directory={folder}", f"--file={archive}"])
    output(["chmod", "--recursive", "u+w", str(folder)])  # or nobody but root could remove it
    archive.unlink()
    return folder


@pytest.fixture(scope="module")
def config(docker: DockerClient, image: str) -> dict[str, Any]:
    """The image's configuration, as a registry keeps it."""
    found: dict[str, Any] = json.loads(output(["docker", "image", "inspect", image]))[0]["Config"]
    return found


def test_the_labels_tell_what_the_image_is(config: dict[str, Any]) -> None:
    prefix = "org.opencontainers.image."
    labels = config["Labels"]
    assert {name.removeprefix(prefix): labels[name] for name in labels if prefix in name} == {
        "title": NAME,
        "description": "A small FastAPI service on PostgreSQL and Redis",
        "version": "1.2.3",
        "revision": "0123abc",
        "source": "https://example.com/service",
        "created": "2026-01-02T03:04:05Z",
        "licenses": "MIT",
    }


def test_gunicorn_is_the_program_without_a_shell_and_sigterm_stops_it(
    config: dict[str, Any],
) -> None:
    assert config["Cmd"] == ["gunicorn", "-c", "python:fastapi_k8s.server"]
    assert config.get("Entrypoint") is None
    assert config.get("StopSignal") is None


def test_the_service_is_an_unprivileged_process_on_a_read_only_root(serve: Serve) -> None:
    with serve() as service:
        status = dict(
            line.split(":\t")
            for line in service.python("print(open('/proc/1/status').read())").splitlines()
            if ":\t" in line
        )
        assert (status["Uid"], status["Gid"]) == ("\t".join(["10001"] * 4),) * 2
        none = "0" * 16
        assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {none}
        assert status["NoNewPrivs"] == "1"
        written = service.python(
            "import os\n"
            "for folder in '/ /app /etc /usr /var /app/.venv /tmp /dev/shm'.split():\n"
            "    try: open(folder + '/new', 'w'); print(folder)\n"
            "    except OSError: pass"
        )
        assert written.split() == ["/tmp", "/dev/shm"]


def test_the_user_can_write_nothing_even_without_the_read_only_root(
    serve: Serve,
) -> None:
    find = (
        "import os\n"
        "for folder, _, files in os.walk('/'):\n"
        "    if folder.startswith(('/proc', '/sys', '/dev', '/tmp')): continue\n"
        "    for path in [folder, *[os.path.join(folder, name) for name in files]]:\n"
        "        if not os.path.islink(path) and os.access(path, os.W_OK): print(path)"
    )
    with serve(read_only=False, tmpfs=[]) as service:
        assert service.python(find) == ""


def test_every_file_belongs_to_root(docker: DockerClient, image: str, tmp_path: Path) -> None:
    container = docker.container.create(image, labels=LABELS)
    docker.container.export(container, tmp_path / "root.tar")
    with tarfile.open(tmp_path / "root.tar") as tar:
        owners = {(member.uid, member.gid) for member in tar}
    assert owners == {(0, 0)}


def test_there_is_no_shell_no_tool_no_test_and_no_source_tree(root: Path) -> None:
    programs = {path.name for path in root.glob("**/bin/*")} | {
        path.name for path in root.glob("**/sbin/*")
    }
    unwanted = {"sh", "bash", "busybox", "uv", "uvx", "pip", "pip3", "gcc", "cc", "ld", "strip"}
    assert programs & (unwanted | {"curl", "wget", "apt", "apt-get", "dpkg", "git", "tar"}) == set()
    packages = {path.name for path in (root / SITE).iterdir()}
    assert packages & {"pip", "pytest", "mypy", "debugpy", "httpx", "setuptools"} == set()
    assert {path.name for path in (root / "app").iterdir()} == {".venv", "healthcheck.py"}
    assert list(root.rglob("uv.lock")) + list(root.rglob(".git")) == []


def test_the_interpreter_comes_with_its_bytecode(root: Path) -> None:
    for folder in (root / "usr/local/lib/python3.14", root / SITE / "fastapi_k8s"):
        sources = folder.glob("*.py")
        compiled = {path.name.partition(".")[0] for path in folder.glob("__pycache__/*.pyc")}
        assert {path.stem for path in sources} <= compiled


def test_the_python_packages_records_agree_with_their_files(root: Path) -> None:
    records = list((root / SITE).glob("*.dist-info/RECORD"))
    assert len(records) > 20
    for record in records:
        for name, hashed, size in csv.reader(record.read_text().splitlines()):
            if hashed:
                content = (root / SITE / name).read_bytes()
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
                assert (hashed, size) == (f"sha256={digest.decode()}", str(len(content))), name


def test_the_debian_packages_records_agree_with_their_files(root: Path) -> None:
    """A scanner sees every shared library that the base brought, under its package's name."""
    records = root / "var/lib/dpkg/status.d"
    listed = set()
    for sums in records.glob("*.md5sums"):
        status = (records / sums.name.removesuffix(".md5sums")).read_text()
        assert f"Package: {sums.name.removesuffix('.md5sums')}\n" in status
        assert "\nVersion: " in status
        for line in sums.read_text().splitlines():
            digest, name = line.split("  ")
            assert hashlib.md5((root / name).read_bytes()).hexdigest() == digest
            listed.add(str((root / name).resolve().relative_to(root.resolve())))
    brought = {
        str(path.resolve().relative_to(root.resolve()))
        for path in root.glob("usr/lib/**/*.so*")
        if path.is_file()
    }
    assert len(brought) > 5
    assert brought - listed == set()
    assert "ID=debian" in (root / "etc/os-release").read_text()


def test_two_clean_builds_give_the_same_files(
    docker: DockerClient, checkout: Path, root: Path, tmp_path: Path, alone: Alone
) -> None:
    tag = f"{RUN}-again"
    with alone():
        docker.build(checkout, cache=False, labels=LABELS, tags=tag, progress=False)
    again = unpack(docker, tag, tmp_path / "again")
    assert dict(contents(again)) == dict(contents(root))


def contents(root: Path) -> Iterator[tuple[PurePosixPath, str]]:
    """Each file with a hash of its content, each link with where it points."""
    for path in root.rglob("*"):
        name = PurePosixPath(path.relative_to(root))
        if path.is_symlink():
            yield name, str(path.readlink())
        elif path.is_file():
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("image")
def test_a_source_edit_is_in_the_next_image_without_the_dependency_step(
    checkout: Path, tmp_path: Path, alone: Alone
) -> None:
    edited = shutil.copytree(checkout, tmp_path / "edited")
    with (edited / "src/fastapi_k8s/health.py").open("a") as file:
        file.write(f"# {tmp_path}\n")
    tag = f"{RUN}-edited"
    with alone():
        told = build(edited, "--progress=plain", f"--tag={tag}").stderr
    show = f"print(open('/{SITE}/fastapi_k8s/health.py').read())"
    assert str(tmp_path) in output(["docker", "run", "--rm", tag, "python", "-c", show])
    steps = dict(
        re.findall(
            r"^(#\d+) \[(?:dependencies|build) .*(--no-(?:install|editable)[\w-]*)",
            told,
            re.MULTILINE,
        )
    )
    cached = set(re.findall(r"^(#\d+) CACHED$", told, re.MULTILINE))
    assert {option: step in cached for step, option in steps.items()} == {
        "--no-install-recommends": True,
        "--no-install-project": True,
        "--no-editable": False,
    }


def build(context: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Build the production image from `context`, under no tag."""
    labels = [f"--label={name}={value}" for name, value in LABELS.items()]
    command = ["docker", "build", *labels, *flags, str(context)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("src/fastapi_k8s/main.py", "import curses", "No module named 'curses'"),
        ("pyproject.toml", "[project.optional-dependencies]\nx = ['rich']", "uv.lock"),
    ],
    ids=["an import that the image cannot do", "a lock file out of date"],
)
@pytest.mark.usefixtures("image")
def test_the_build_fails_on(
    checkout: Path, tmp_path: Path, file: str, line: str, message: str
) -> None:
    broken = shutil.copytree(checkout, tmp_path / "broken")
    with (broken / file).open("a") as opened:
        opened.write(f"{line}\n")
    done = build(broken)
    assert done.returncode != 0
    assert message in done.stderr


def test_the_context_has_no_secret_no_history_and_no_tests(
    docker: DockerClient, checkout: Path, tmp_path: Path
) -> None:
    context = shutil.copytree(checkout, tmp_path / "context")
    for name in (".env", "src/.env", ".git/config", "src/fastapi_k8s/__pycache__/x.pyc", "id_rsa"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("secret")
    everything = tmp_path / "Dockerfile"
    everything.write_text("FROM scratch\nCOPY . /\n")
    docker.build(context, file=everything, output={"type": "local", "dest": str(tmp_path / "sent")})
    sent = {str(path.relative_to(tmp_path / "sent")) for path in (tmp_path / "sent").rglob("*")}
    top = {name.split("/")[0] for name in sent}
    assert top == {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "tools", "src"}
    assert [name for name in sent if ".env" in name or "__pycache__" in name] == []
    assert {name for name in sent if name.startswith("tools/dev/")} == {"tools/dev/reload.py"}


def test_the_development_stage_serves_with_a_shell_a_debugger_and_the_same_user(
    docker: DockerClient, checkout: Path, serve: Serve
) -> None:
    tag = f"{RUN}-development"
    docker.build(checkout, target="development", labels=LABELS, tags=tag, progress=False)
    with serve(tag=tag) as service:
        program = "id -u && python -c 'import debugpy; print(debugpy.__version__)'"
        told = service.container.execute(["sh", "-c", program])
        assert str(told).startswith("10001\n1.")
