"""Verify the finished image as the last step of its build.

The build fails if the application cannot be imported and created, or if a shared library needs a
library or a symbol that is not in the image. Without this check such an image would be published
and would fail at the first request that uses the missing part.
"""

import ctypes
import importlib
import os
import sys
import sysconfig
from pathlib import Path


def import_application() -> None:
    """Import what the image's commands import, and create the application.

    Nothing connects to the database here, but settings without a URL would be refused.
    """
    os.environ["DATABASE_URL"] = "postgresql://user@db/name"
    importlib.import_module("fastapi_k8s.server")
    importlib.import_module("fastapi_k8s.cli")
    importlib.import_module("fastapi_k8s.main").create_app_from_environment()


def load_shared_libraries() -> None:
    """Load every shared library of the environment and of the standard library.

    `RTLD_NOW` resolves all symbols at once, so that a missing one raises `OSError` here.
    """
    for folder in (sys.prefix, sysconfig.get_path("stdlib")):
        for library in Path(folder).rglob("*.so*"):
            ctypes.CDLL(str(library), os.RTLD_NOW)


if __name__ == "__main__":
    import_application()
    load_shared_libraries()
