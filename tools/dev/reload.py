"""The API with hot reload: it starts again when a file in `src/` changes.

`make run` calls `serve`; the development image runs this module.
"""

import os
from pathlib import Path

import uvicorn

import fastapi_k8s as package
from fastapi_k8s.observability.logs import logging_config
from fastapi_k8s.server.http_protocol import HttpProtocolFactory

SOURCE_FOLDER = Path(__file__).resolve().parents[2] / "src"


def serve(host: str, port: int, root_path: str) -> None:
    """Serve on `http://host:port`, behind the path prefix `root_path`, until a signal arrives."""
    uvicorn.run(
        f"{package.__name__}.main:create_app_from_environment",
        factory=True,
        host=host,
        port=port,
        reload=True,
        reload_dirs=[str(SOURCE_FOLDER)],
        root_path=root_path,
        http=HttpProtocolFactory(),  # type: ignore[arg-type]  # called like a class
        log_config=logging_config(),
        access_log=False,
    )


if __name__ == "__main__":
    serve("0.0.0.0", 8000, os.environ.get("ROOT_PATH", ""))
