"""A bare FastAPI application: the baseline of `GET /health`.

It imports nothing else, so that its start time is FastAPI's.
"""

from typing import Any

from fastapi import FastAPI


def create_app(**options: Any) -> FastAPI:
    """An application that responds to GET /health like the service. `options` are FastAPI's."""
    app = FastAPI(**options)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
