"""Fail the build if the service does not import, or a shared library lacks what it links."""

import ctypes
import importlib
import os
import sys
import sysconfig
from pathlib import Path

os.environ["DATABASE_URL"] = "postgresql://user@db/name"
importlib.import_module("fastapi_k8s.server")
importlib.import_module("fastapi_k8s.cli")
importlib.import_module("fastapi_k8s.main").application()
for folder in (sys.prefix, sysconfig.get_path("stdlib")):
    for library in Path(folder).rglob("*.so*"):
        ctypes.CDLL(str(library), os.RTLD_NOW)
