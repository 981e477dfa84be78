"""FastAPI and one handler, the service's own: what everything is compared with.

It imports nothing else, so that its start is FastAPI's.
"""

from typing import Any

from fastapi import FastAPI


def application(**options: Any) -> FastAPI:
    """An application that answers GET /health as the service does, with `options` of FastAPI's."""
    app = FastAPI(**options)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
