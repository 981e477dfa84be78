"""The image with popular packages whose wheels are made in different ways."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from python_on_whales import DockerClient

from tests.container.conftest import HARDENING_OPTIONS
from tests.docker_session import LABELS, SESSION_NAME, BuildLock
from tools.checkout import PROJECT, copy_checkout, run_command

MODULES = {
    "cryptography": "cryptography.hazmat.bindings._rust",  # Rust
    "grpcio": "grpc",  # C++, without bundled libraries
    "lxml": "lxml.etree",  # C libraries, linked statically
    "matplotlib": "matplotlib.pyplot",  # libraries that crash if they are loaded outside an import
    "numba": "numba",  # optional parts that link libraries that are not in any package
    "opencv-python-headless": "cv2",  # libraries in a separate folder
    "orjson": "orjson",  # Rust
    "pandas": "pandas",
    "pillow": "PIL.Image",  # libraries in a separate folder
    "psycopg[binary]": "psycopg",  # libraries that are known to the package's own folder only
    "pyarrow": "pyarrow.parquet",  # large C++ libraries, and data files with `.so` in their names
    "scikit-learn": "sklearn.linear_model",  # Fortran in scipy; imports doctest and thereby pdb
}
"""The module to import of each package."""

STANDARD_LIBRARY = "_pyrepl, curses, dbm, doctest, pdb, pydoc, pydoc_data.topics, readline"


def find_uv() -> str:
    """Return the uv of `uv run`, which runs the tests, or else that of the PATH or of make."""
    return os.environ.get("UV") or shutil.which("uv") or str(PROJECT / ".uv/bin/uv")


@pytest.fixture(scope="module")
def wheels_image(
    docker: DockerClient, tmp_path_factory: pytest.TempPathFactory, build_lock: BuildLock
) -> str:
    """The tag of an image of this project to which the packages were added with `uv add`."""
    checkout = copy_checkout(tmp_path_factory.mktemp("wheels"))
    run_command([find_uv(), "add", "--quiet", "--no-sync", *MODULES], cwd=checkout)
    tag = f"{SESSION_NAME}-wheels"
    with build_lock():
        docker.build(checkout, labels=LABELS, tags=tag, progress=False)
    return tag


@pytest.mark.timeout(900)  # the build downloads 300 MB
def test_each_package_and_the_standard_library_can_be_imported(
    docker: DockerClient, wheels_image: str
) -> None:
    program = f"import {', '.join(MODULES.values())}, {STANDARD_LIBRARY}; print('imported')"
    command = ["python", "-W", "ignore", "-c", program]
    output = docker.run(wheels_image, command, remove=True, labels=LABELS, **HARDENING_OPTIONS)
    assert "imported" in str(output)


@pytest.mark.timeout(900)
def test_a_missing_library_is_reported_with_its_package_and_what_to_do(
    wheels_image: str, tmp_path: Path
) -> None:
    """Runs the last step of the build again, with a library that is not optional anymore."""
    verify = (PROJECT / "tools/image/verify.py").read_text()
    (tmp_path / "verify.py").write_text(verify.replace('"libtbb.so.12",', ""))
    (tmp_path / "tools/image").mkdir(parents=True)
    shutil.copy(PROJECT / "tools/image/elf.py", tmp_path / "tools/image")
    command = ["docker", "run", "--rm", "--user=0", f"--volume={tmp_path}:/tmp/verify:ro,z"]
    command += [wheels_image, "python", "/tmp/verify/verify.py"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith("libtbb.so.12 is missing. numba needs it: /app/.venv/lib/")
    assert "stage `dependencies` of the Dockerfile" in process.stderr
    assert process.stderr.count("is missing") == 1
