"""`make bench-image`: the image's size, its builds and its start, as a Markdown table."""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen, getoutput
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from uuid import uuid4

import fastapi_k8s as package
from tools.checkout import copy_checkout

RUN = f"{package.NAME}-bench-{uuid4().hex[:12]}"  # names images, labels containers
CLEAN_BUILDS, REBUILDS, STARTS = 2, 3, 5
HARDENED = ("--read-only", "--cap-drop=ALL", "--tmpfs=/tmp", "--security-opt=no-new-privileges")
DATABASE = "--env=DATABASE_URL=postgresql://app:unused@127.0.0.1/app"  # /health touches none


def main() -> None:
    """Print the table. Leaves with a message, and another code than 0, if that is impossible."""
    _on_interrupts(_leave)
    with TemporaryDirectory(prefix="bench-") as context:
        try:
            rows = list(_measure(Path(context)))
        finally:
            _sweep()
    print("| What | Measured | Target | Met |\n|---|---|---|---|", *rows, sep="\n")


def _measure(context: Path) -> Iterator[str]:
    print("bench: building and starting, some minutes", file=sys.stderr, flush=True)
    copy_checkout(context)
    _build("production", context, "--no-cache")  # fills uv's cache, and is not counted
    yield from _sizes(context)
    yield from _builds(context)
    yield _row(f"Start to the first 200, s, median of {STARTS}", median(map(_start, range(STARTS))))


def _sizes(context: Path) -> Iterator[str]:
    arguments, _, _ = (context / "Dockerfile").read_text().partition("\nFROM ")
    (context / "base").write_text(f"{arguments}\nFROM $PYTHON_IMAGE\n")
    _build("base", context, f"--file={context}/base")  # `docker save` may not know it otherwise
    _build("dockerfile.dev", context, f"--file={context}/Dockerfile.dev")
    _build("development", context, "--target=development")
    command = f"docker save {RUN}:%s | gzip | wc -c"
    ours, its = (int(getoutput(command % tag)) / 1e6 for tag in ("production", "base"))
    yield _row("Compressed, MB", ours, 40)
    yield _row("`PYTHON_IMAGE` alone, compressed, MB", its)
    yield _row("Compressed, as a share of that", ours / its)
    for tag in ("production", "dockerfile.dev", "development"):
        size, _ = _docker("image", "inspect", "--format={{.Size}}", f"{RUN}:{tag}")
        yield _row(f"On disk, MB: {tag}", int(size) / 1e6)


def _builds(context: Path) -> Iterator[str]:
    clean = median(_build(f"clean-{n}", context, "--no-cache")[0] for n in range(CLEAN_BUILDS))
    rebuilds = []
    for number in range(REBUILDS):
        with (context / "src" / package.__name__ / "health.py").open("a") as source:
            source.write(f"# {RUN} {number}\n")  # which was never built before
        rebuilds.append(_build(f"rebuild-{number}", context))
    rebuild = median(seconds for seconds, _ in rebuilds)
    always = "yes" if all(reused for _, reused in rebuilds) else "no"
    yield _row(f"Clean build, packages in uv's cache, s, median of {CLEAN_BUILDS}", clean)
    yield _row(f"Rebuild after an edit of one line, s, median of {REBUILDS}", rebuild)
    yield _row("Rebuild, as a share of the clean build", rebuild / clean, 0.25)
    yield f"| The rebuild reuses the dependency step | {always} | yes | {always} |"


def _build(tag: str, context: Path, *flags: str) -> tuple[float, bool]:
    """Seconds, and whether the dependencies were reused. A tag given twice would leave an image."""
    began = monotonic()
    _, log = _docker("build", "--progress=plain", f"--tag={RUN}:{tag}", *flags, str(context))
    seconds = monotonic() - began
    return seconds, bool(re.search(r"(?ms)^(#\d+) \[dependencies [^\n]*uv sync.*^\1 CACHED$", log))


def _start(_: int) -> float:
    options = (f"--label={RUN}", "--publish=127.0.0.1::8000", *HARDENED, DATABASE)
    container = _docker("create", *options, f"{RUN}:production")[0].strip()
    began = monotonic()
    _docker("start", container)
    port = int(_docker("port", container, "8000")[0].rpartition(":")[2])
    while not _answers(port):
        if monotonic() > began + 60:
            sys.exit("bench: no answer in 60 s:\n" + "".join(_docker("logs", container)))
        sleep(0.01)
    seconds = monotonic() - began
    _docker("rm", "--force", container)
    return seconds


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def _docker(*words: str) -> tuple[str, str]:
    """Both outputs. Ctrl-C ends builds alone: what is half made would appear after _sweep."""
    with Popen(["docker", *words], process_group=0, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            output, errors = process.communicate()
        except SystemExit:
            if words[0] == "build":
                process.send_signal(signal.SIGINT)
            process.communicate()
            raise
    if process.returncode:
        sys.exit(f"bench: docker {' '.join(words)} failed:\n{errors}")
    return output, errors


def _leave(*_: object) -> None:
    _on_interrupts(signal.SIG_IGN)  # of one Ctrl-C there may be two: uv hands it on
    sys.exit(130)


def _on_interrupts(handler: Callable[..., None] | signal.Handlers) -> None:
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interrupt, handler)


def _sweep() -> None:
    _on_interrupts(signal.SIG_IGN)
    if containers := _docker("ps", "--all", "--quiet", f"--filter=label={RUN}")[0].split():
        _docker("rm", "--force", *containers)
    if tags := _docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", RUN)[0].split():
        _docker("image", "rm", *tags)


def _row(what: str, value: float, target: float | None = None) -> str:
    bound = " | " if target is None else f"≤ {target:g} | {'yes' if value <= target else 'no'}"
    return f"| {what} | {value:.2f} | {bound} |"


if __name__ == "__main__":
    main()
