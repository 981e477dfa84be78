"""Create the next migration: `python -m tools.dev.revision "add orders"`.

Works without a database and without Docker. Prints the path of the new file.
"""

import sys
from argparse import Namespace
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script
from alembic.util import CommandError

import fastapi_k8s as package
from fastapi_k8s.migrations import newest_revision


def main() -> None:
    """Create the file. Exits with a message if Alembic refuses the revision."""
    message = sys.argv[1]
    number = f"{int(newest_revision()) + 1:04}"
    config = Config(cmd_opts=Namespace(quiet=True))
    config.set_main_option("script_location", f"{package.__name__}:migrations")
    try:
        script = command.revision(config, message=message, rev_id=number)
    except CommandError as error:
        sys.exit(f"revision: {error}")
    assert isinstance(script, Script)
    print(Path(script.path).relative_to(Path.cwd()))


if __name__ == "__main__":
    main()
