"""`make bench`: the service beside a bare FastAPI application, as a Markdown table of ratios.

Ratios are of one run and one core, and carry over to other machines; the raw figures do not.
"""

import os
import platform
import shutil
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.dev.servers import Postgres, ServerError, Valkey, running

from . import report
from .footprint import memory, starts
from .processes import OTHERS, migrate
from .throughput import throughput

TOOLS = {"wrk": "wrk", "taskset": "util-linux"}
"""Commands, and Debian's packages of them."""

PACKAGES = ("fastapi", "uvicorn", "gunicorn", "asyncpg", "redis")


def main() -> None:
    """Print the report. Leaves with a message, and another code than 0, if that is impossible."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _check_machine()
    os.sched_setaffinity(0, OTHERS)  # the databases and wrk inherit it
    try:
        with TemporaryDirectory(prefix="bench-") as folder:
            text = _measure(Path(folder))
    except ServerError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(text)


def _check_machine() -> None:
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing; on Debian: apt install {package}")
    if not OTHERS:
        sys.exit("bench: two cores are needed, one of them for what is measured")


def _measure(folder: Path) -> str:
    postgres, valkey = Postgres(folder / "postgresql"), Valkey(folder / "valkey")
    with running(postgres, valkey):
        _say("preparing")
        url = postgres.url
        migrate(url, folder)
        _say("throughput, about two minutes")
        samples = throughput(folder, url, valkey)
        _say("start and memory, about a minute")
        measured = report.Measured(samples, starts(folder, url), memory(folder, url))
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{report.markdown(measured)}\nPython {platform.python_version()}, {versions}."


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
