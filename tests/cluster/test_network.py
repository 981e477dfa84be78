"""Pods can open exactly the connections that the NetworkPolicies allow."""

import pytest

from tools.cluster.ephemeral import EphemeralDeployment, run_python, start_idle_pod
from tools.cluster.kubectl import ClusterError, Kubectl

CONNECT_PROGRAM = """
import socket, sys

try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""
RESOLVE_PROGRAM = """
import socket, sys

try:
    socket.getaddrinfo(sys.argv[1], 80)
    print("resolved")
except OSError as error:
    print(type(error).__name__)
"""
PORTS = {"api": 8000, "database": 5432, "cache": 6379}


def can_connect(kubectl: Kubectl, pod: str, host: str, port: int) -> bool:
    output = run_python(kubectl, pod, CONNECT_PROGRAM, host, str(port))
    return output.strip() == "connected"


def resolve(kubectl: Kubectl, pod: str, host: str) -> str:
    return run_python(kubectl, pod, RESOLVE_PROGRAM, host).strip()


def pod_ip(deployment: EphemeralDeployment, component: str) -> str:
    """Return the address of a component's pod. The Service of the database has no address."""
    ip: str = deployment.kubectl.list_pods(component)[0]["status"]["podIP"]
    return ip


def test_a_pod_of_another_namespace_reaches_only_the_api(deployment: EphemeralDeployment) -> None:
    for component, port in PORTS.items():
        ip = pod_ip(deployment, component)
        connected = can_connect(deployment.client_kubectl, "client", ip, port)
        assert connected == (component == "api"), component


def test_the_api_reaches_the_database_the_cache_and_dns_only(
    deployment: EphemeralDeployment,
) -> None:
    pod = deployment.pod_names()[0]
    assert can_connect(deployment.kubectl, pod, "db", 5432)
    assert can_connect(deployment.kubectl, pod, "redis", 6379)
    assert not can_connect(deployment.kubectl, pod, "kubernetes.default.svc", 443)
    assert resolve(deployment.kubectl, pod, "kubernetes.default.svc") == "resolved"


def test_a_pod_without_its_own_policy_reaches_nothing(
    deployment: EphemeralDeployment,
) -> None:
    client = deployment.client_kubectl.get_existing("pod", "client")
    image = client["spec"]["containers"][0]["image"]
    kubectl = deployment.kubectl
    try:
        start_idle_pod(kubectl, "other", image)
        for component, port in PORTS.items():
            ip = pod_ip(deployment, component)
            assert not can_connect(kubectl, "other", ip, port), component
        assert resolve(kubectl, "other", "db") == "gaierror"
    finally:
        kubectl.run("delete", "pod", "other", "--grace-period=1", "--ignore-not-found")


def test_the_database_reaches_nothing(deployment: EphemeralDeployment) -> None:
    ip = pod_ip(deployment, "api")
    connect = f"PGCONNECT_TIMEOUT=3 psql --host={ip} --port=8000 --username=app"
    with pytest.raises(ClusterError, match=r"timeout expired|refused|unreachable"):
        deployment.kubectl.run("exec", "db-0", "--", "sh", "-c", connect)
