"""The API with hot reload: it starts again when a Python file in `src/` changes.

`make run` calls `serve`; the development image runs this module.
"""

import os
from collections.abc import Callable
from pathlib import Path
from socket import socket

import uvicorn
from uvicorn.supervisors.basereload import BaseReload

import fastapi_k8s as package
from fastapi_k8s.observability.logs import logging_config
from fastapi_k8s.server.connections import HttpProtocolFactory

SOURCE_FOLDER = Path(__file__).resolve().parents[2] / "src"


class SourceReload(BaseReload):
    """Restart the application when a source file is edited, created or deleted.

    Uvicorn's own reloader notices edits only: after a migration was deleted, `/ready` would respond
    with `behind` until the next edit.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        target: Callable[[list[socket] | None], None],
        sockets: list[socket],
    ) -> None:
        super().__init__(config, target, sockets)
        self.reloader_name = type(self).__name__
        self._modification_times = read_modification_times()

    def should_restart(self) -> list[Path] | None:
        """Wait for a moment, and return the files that have changed since the last call."""
        self.pause()
        earlier_times = self._modification_times
        self._modification_times = read_modification_times()
        changes = earlier_times.items() ^ self._modification_times.items()
        return sorted({path for path, _ in changes})


def read_modification_times() -> dict[Path, int]:
    """Return the modification time of each Python file in SOURCE_FOLDER, in nanoseconds."""
    times = {}
    for path in SOURCE_FOLDER.rglob("*.py"):
        try:
            times[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # deleted after it was found
            continue
    return times


def serve(host: str, port: int, root_path: str) -> None:
    """Serve on `http://host:port`, behind the path prefix `root_path`, until a signal arrives."""
    config = uvicorn.Config(
        f"{package.__name__}.main:create_app_from_environment",
        factory=True,
        host=host,
        port=port,
        root_path=root_path,
        http=HttpProtocolFactory(),  # type: ignore[arg-type]  # called like a class
        log_config=logging_config(),
        access_log=False,
    )
    SourceReload(config, uvicorn.Server(config).run, [config.bind_socket()]).run()


if __name__ == "__main__":
    serve("0.0.0.0", 8000, os.environ.get("ROOT_PATH", ""))
