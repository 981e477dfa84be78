"""The service's command."""

import argparse
import asyncio
import logging.config
import os
import sys

from . import NAME
from .database import UNAVAILABLE
from .observability import logs
from .settings import load_settings


def main() -> None:
    """Run the subcommand that the command line names. Wrong settings: exit code 2."""
    parser = argparse.ArgumentParser(prog=NAME)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve HTTP")
    migrating = commands.add_parser("migrate", help="bring the schema to this release's revision")
    migrating.add_argument(
        "--wait", type=float, default=60, metavar="SECONDS", help="for PostgreSQL (default: 60)"
    )
    arguments = parser.parse_args()
    if arguments.command == "serve":
        _serve()
    else:
        _migrate(arguments.wait)


def _serve() -> None:
    # Gunicorn reads these two while it is imported, and answers a bad one with a traceback.
    settings = load_settings()
    os.environ |= {"PORT": str(settings.port), "WEB_CONCURRENCY": str(settings.web_concurrency)}
    from gunicorn.app.wsgiapp import run  # noqa: PLC0415

    sys.argv = ["gunicorn", "-c", f"python:{__package__}.server"]
    run()  # type: ignore[no-untyped-call]


def _migrate(wait: float) -> None:
    # Here, so that serving loads neither Alembic nor SQLAlchemy.
    from .migrations.migrate import migrate  # noqa: PLC0415

    logging.config.dictConfig(logs.CONFIG)
    try:
        asyncio.run(migrate(load_settings(), wait))
    except UNAVAILABLE as error:
        sys.exit(f"{NAME}: the database cannot be used: {type(error).__name__}")
