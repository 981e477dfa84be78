"""The schema of the HTTPRoute, from the Go module of the Gateway API."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tools.checkout import run_command

# renovate: datasource=go depName=sigs.k8s.io/gateway-api
VERSION = "v1.6.3"
MODULE = f"sigs.k8s.io/gateway-api@{VERSION}"


def http_route_crd() -> Path:
    """Return the file with the CustomResourceDefinition of the HTTPRoute.

    The test is skipped without Go, but with `CI=true` it fails.
    """
    if not shutil.which("go"):
        if os.environ.get("CI") == "true":
            pytest.fail("Go is not installed")
        pytest.skip("Go is not installed")
    # Outside of the checkout, because the command would read or write a go.mod there.
    module = json.loads(run_command(["go", "mod", "download", "-json", MODULE], cwd="/"))
    folder = Path(module["Dir"], "config", "crd", "standard")
    return folder / "gateway.networking.k8s.io_httproutes.yaml"
