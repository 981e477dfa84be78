"""What the NetworkPolicies let through, worked out as Kubernetes does.

https://kubernetes.io/docs/concepts/services-networking/network-policies/ : policies add up, a pod
that none selects is open, and a connection needs both ends' consent.
"""

from typing import Any

import pytest

from tests.manifest.conftest import DOCUMENTS, find, pods

OURS = find("Namespace")["metadata"]["name"]
PORTS = {"api": 8000, "db": 5432, "redis": 6379, "dns": 53}
EVERYBODY = {
    **{name: (OURS, template["metadata"]["labels"]) for name, template in pods().items()},
    "stranger": ("elsewhere", {"app": "stranger"}),
    "neighbour": (OURS, {"app": "neighbour"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
}
ALLOWED = {
    ("stranger", "api"),
    ("dns", "api"),
    ("api", "db"),
    ("api", "redis"),
    ("api", "dns"),
    ("stranger", "dns"),
}


@pytest.mark.parametrize("target", PORTS)
@pytest.mark.parametrize("source", EVERYBODY)
def test_only_who_needs_it_gets_through(source: str, target: str) -> None:
    if source != target:
        assert passes(source, target, PORTS[target]) == ((source, target) in ALLOWED)


@pytest.mark.parametrize("target", pods())
def test_no_other_port_is_open(target: str) -> None:
    assert not passes("stranger", target, 22)
    assert not passes("api", target, 22)


def passes(source: str, target: str, port: int) -> bool:
    """Whether a connection from a pod to another's port is allowed."""
    return consents(source, "egress", target, port) and consents(target, "ingress", source, port)


def consents(pod: str, direction: str, other: str, port: int) -> bool:
    namespace, labels = EVERYBODY[pod]
    policies = [
        each["spec"]
        for each in DOCUMENTS
        if each["kind"] == "NetworkPolicy"
        and namespace == OURS
        and matches(each["spec"]["podSelector"], labels)
        and direction.capitalize() in each["spec"]["policyTypes"]
    ]
    rules = [rule for policy in policies for rule in policy.get(direction, [])]
    peers = {"egress": "to", "ingress": "from"}[direction]
    return not policies or any(
        port in {each["port"] for each in rule["ports"]}
        and any(is_peer(peer, *EVERYBODY[other]) for peer in rule[peers])
        for rule in rules
    )


def is_peer(peer: Any, namespace: str, labels: dict[str, str]) -> bool:
    """A selector of pods alone means the policy's own namespace."""
    if "namespaceSelector" in peer:
        there = matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
    else:
        there = namespace == OURS
    return there and matches(peer.get("podSelector", {}), labels)


def matches(selector: dict[str, dict[str, str]], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()
