"""FastAPI and one handler, the service's own: what everything is compared with.

It imports nothing else, so that its start is FastAPI's.
"""

from typing import Literal

from fastapi import FastAPI


def application() -> FastAPI:
    """An application that answers GET /health as the service does."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[Literal["status"], Literal["ok"]]:
        return {"status": "ok"}

    return app
