"""`make openapi`: write the OpenAPI document of the service to docs/openapi.json.

`python -m tools.openapi --check` only compares, and exits with code 1 if the file is outdated.
"""

import argparse
import json
import sys
from pathlib import Path

from fastapi_k8s.main import create_app
from fastapi_k8s.settings import Settings

DOCUMENT = Path("docs/openapi.json")


def main() -> None:
    """Write or compare the document."""
    parser = argparse.ArgumentParser(prog="python -m tools.openapi")
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        DOCUMENT.write_text(render())
        print(f"Wrote {DOCUMENT}")
    elif not DOCUMENT.exists() or DOCUMENT.read_text() != render():
        sys.exit(f"{DOCUMENT} is outdated: run `make openapi` and review the difference.")


def render() -> str:
    """The document as JSON text. It needs no server and no settings."""
    app = create_app(Settings(_env_file=None, database_url="postgresql://user@host/name"))
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
