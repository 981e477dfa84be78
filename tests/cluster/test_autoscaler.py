"""The autoscaler adds pods under load and removes them afterwards."""

import json

from tests.cluster.conftest import skip_unless_ci
from tools.cluster.ephemeral import EphemeralDeployment
from tools.dev.servers import wait_until

FAST_SCALE_DOWN = {
    "stabilizationWindowSeconds": 15,
    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}],
}
"""k8s.yaml waits for five minutes before it scales down, which would be too long for a test."""


def test_the_autoscaler_adds_and_removes_pods_without_losing_a_request(
    deployment: EphemeralDeployment,
) -> None:
    if deployment.kubectl.get("apiservice", "v1beta1.metrics.k8s.io") is None:
        skip_unless_ci("the cluster has no metrics-server")
    deployment.set_pod_limits(min_replicas=2, max_replicas=6)
    patch = {"spec": {"behavior": {"scaleDown": FAST_SCALE_DOWN}}}
    deployment.kubectl.run("patch", "hpa", "api", f"--patch={json.dumps(patch)}")
    with deployment.load(clients=8, pause_seconds=0.1) as light_load:
        with deployment.load() as heavy_load:
            wait_until(lambda: len(deployment.pod_names()) > 2, 240, "more than two pods")
            assert heavy_load.read_statistics().failures == []
        wait_until(lambda: len(deployment.pod_names()) == 2, 280, "two pods again")
        assert light_load.read_statistics().failures == []
