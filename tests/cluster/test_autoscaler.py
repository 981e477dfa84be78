"""More pods under load, and fewer after it."""

import json
import os

import pytest

from tests.cluster.place import Place
from tools.dev.servers import wait_until

QUICK = {
    "stabilizationWindowSeconds": 15,
    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}],
}
"""For scaling down, which k8s.yaml lets begin after five minutes."""


def test_the_autoscaler_adds_pods_under_load_and_takes_them_away_and_loses_nothing(
    service: Place,
) -> None:
    if service.kubectl.get("apiservice", "v1beta1.metrics.k8s.io") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the cluster has no metrics-server")
        pytest.skip("the cluster has no metrics-server")
    service.autoscale(least=2, most=6)
    patch = json.dumps({"spec": {"behavior": {"scaleDown": QUICK}}})
    service.kubectl.run("patch", "hpa", "api", f"--patch={patch}")
    with service.load(clients=8, pause=0.1) as light:
        with service.load() as heavy:
            wait_until(lambda: len(service.names()) > 2, 240, "more than two pods")
            assert heavy.seen().failures == []
        wait_until(lambda: len(service.names()) == 2, 280, "two pods again")
        assert light.seen().failures == []
