"""What the NetworkPolicies let through, tried from pods."""

import pytest

from tests.cluster.place import Place
from tools.cluster.kubectl import ClusterError

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("open")
except OSError as error:
    print(type(error).__name__)
"""
RESOLVE = """
import socket, sys
try:
    print(socket.getaddrinfo(sys.argv[1], 80) and "found")
except OSError as error:
    print(type(error).__name__)
"""


def address(service: Place, component: str) -> str:
    """The address of a component's pod, since the database's Service has none."""
    ip: str = service.kubectl.list_pods(component)[0]["status"]["podIP"]
    return ip


def from_client(service: Place, component: str, port: int) -> str:
    return service.python(CONNECT, address(service, component), str(port)).strip()


def test_pods_of_other_namespaces_reach_the_api_alone(service: Place) -> None:
    assert from_client(service, "api", 8000) == "open"
    assert from_client(service, "database", 5432) != "open"
    assert from_client(service, "cache", 6379) != "open"


def test_the_api_reaches_its_servers_and_names_and_nothing_else(service: Place) -> None:
    pod = service.kubectl.list_pods()[0]["metadata"]["name"]

    def python(program: str, *arguments: str) -> str:
        inside = ["exec", pod, "--container=api", "--", "python", "-c", program, *arguments]
        return service.kubectl.run(*inside).strip()

    assert python(CONNECT, "db", "5432") == "open"
    assert python(CONNECT, "redis", "6379") == "open"
    assert python(CONNECT, "kubernetes.default.svc", "443") != "open"
    assert python(RESOLVE, "kubernetes.default.svc") == "found"


def test_another_pod_of_the_namespace_reaches_nothing(service: Place) -> None:
    image = service.client.get_existing("pod", "client")["spec"]["containers"][0]["image"]

    def python(program: str, *arguments: str) -> str:
        inside = ["exec", "neighbour", "--", "python", "-c", program, *arguments]
        return service.kubectl.run(*inside).strip()

    try:
        service.start_pod(service.kubectl, "neighbour", image)
        for component, port in (("api", 8000), ("database", 5432), ("cache", 6379)):
            found = python(CONNECT, address(service, component), str(port))
            assert found != "open", component
        assert python(RESOLVE, "db") == "gaierror"
    finally:
        service.kubectl.run("delete", "pod", "neighbour", "--grace-period=1", "--ignore-not-found")


def test_the_database_reaches_nothing(service: Place) -> None:
    ask = f"PGCONNECT_TIMEOUT=3 psql --host={address(service, 'api')} --port=8000 --username=app"
    with pytest.raises(ClusterError, match=r"timeout expired|refused|unreachable"):
        service.kubectl.run("exec", "db-0", "--", "sh", "-c", ask)
