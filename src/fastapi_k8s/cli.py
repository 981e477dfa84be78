"""The service's command."""

import argparse
import asyncio
import logging.config
import sys

from . import NAME
from .database import UNAVAILABLE
from .migrations.migrate import migrate
from .observability import logs
from .settings import load_settings


def main() -> None:
    """Run the subcommand that the command line names. Wrong settings: exit code 2."""
    parser = argparse.ArgumentParser(prog=NAME)
    commands = parser.add_subparsers(dest="command", required=True)
    migrating = commands.add_parser("migrate", help="bring the schema to this release's revision")
    migrating.add_argument("--wait", type=float, default=60, help="seconds to wait for PostgreSQL")
    arguments = parser.parse_args()
    logging.config.dictConfig(logs.CONFIG)
    try:
        asyncio.run(migrate(load_settings(), arguments.wait))
    except UNAVAILABLE as error:
        sys.exit(f"{NAME}: the database cannot be used: {error!r}")
