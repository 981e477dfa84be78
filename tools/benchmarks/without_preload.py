"""The service for a Gunicorn without the service's configuration: each worker imports all of it."""

from fastapi import FastAPI
from gunicorn.util import import_app

from fastapi_k8s.server import wsgi_app


def create_app() -> FastAPI:
    """The application that the service's own configuration of Gunicorn names."""
    app: FastAPI = import_app(wsgi_app)  # type: ignore[no-untyped-call]
    return app
