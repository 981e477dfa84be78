"""The command line program of the service."""

import argparse
import asyncio
import logging.config
import sys

from . import NAME
from .database import UNAVAILABLE_ERRORS
from .migrations.migrate import migrate
from .observability.logs import logging_config
from .settings import load_settings


def main() -> None:
    """Run the subcommand of the command line. Exits with code 2 if a setting is invalid."""
    parser = argparse.ArgumentParser(prog=NAME)
    subcommands = parser.add_subparsers(required=True)
    migrate_parser = subcommands.add_parser("migrate", help="upgrade the schema of the database")
    migrate_parser.add_argument(
        "--wait",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long to wait for PostgreSQL (default: %(default)s)",
    )
    migrate_parser.set_defaults(run=run_migrate)
    arguments = parser.parse_args()
    arguments.run(arguments)


def run_migrate(arguments: argparse.Namespace) -> None:
    """`migrate`: exits with code 1 and a message if PostgreSQL cannot be used."""
    logging.config.dictConfig(logging_config())
    try:
        asyncio.run(migrate(load_settings(), arguments.wait))
    except UNAVAILABLE_ERRORS as error:
        sys.exit(f"{NAME}: cannot use the database: {error!r}")
