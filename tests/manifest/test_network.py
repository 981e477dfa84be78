"""The NetworkPolicies allow only the connections that are needed.

The tests evaluate the policies by the rules of Kubernetes: policies are additive, a pod without a
policy accepts everything, and a connection has to be allowed at both ends.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from typing import NamedTuple

import pytest

from tests.manifest.conftest import OBJECTS, find_object, pod_templates
from tools.cluster.kubectl import KubernetesObject

NAMESPACE = find_object("Namespace")["metadata"]["name"]
PORTS = {"api": 8000, "db": 5432, "redis": 6379, "dns": 53}


class Pod(NamedTuple):
    """What a NetworkPolicy can select a pod by."""

    namespace: str
    labels: dict[str, str]


PODS = {
    **{
        name: Pod(NAMESPACE, template["metadata"]["labels"])
        for name, template in pod_templates().items()
    },
    "pod of another namespace": Pod("another", {"app": "client"}),
    "pod of the same namespace": Pod(NAMESPACE, {"app": "client"}),
    "dns": Pod("kube-system", {"k8s-app": "kube-dns"}),
}
ALLOWED_CONNECTIONS = {
    ("pod of another namespace", "api"),
    ("dns", "api"),
    ("api", "db"),
    ("api", "redis"),
    ("api", "dns"),
    ("pod of another namespace", "dns"),
}


@pytest.mark.parametrize("target", PORTS)
@pytest.mark.parametrize("source", PODS)
def test_only_the_listed_connections_are_allowed(source: str, target: str) -> None:
    if source != target:
        expected = (source, target) in ALLOWED_CONNECTIONS
        assert is_allowed(source, target, PORTS[target]) == expected


@pytest.mark.parametrize("target", pod_templates())
def test_no_other_port_is_open(target: str) -> None:
    assert not is_allowed("pod of another namespace", target, 22)
    assert not is_allowed("api", target, 22)


def is_allowed(source: str, target: str, port: int) -> bool:
    """Whether a pod may connect to a port of another pod."""
    return allows_egress(source, target, port) and allows_ingress(target, source, port)


def allows_egress(source: str, target: str, port: int) -> bool:
    """Whether the policies of the source allow the connection."""
    policies = select_policies(PODS[source], "Egress")
    rules = [rule for policy in policies for rule in policy.get("egress", [])]
    return not policies or any(matches_rule(rule, "to", PODS[target], port) for rule in rules)


def allows_ingress(target: str, source: str, port: int) -> bool:
    """Whether the policies of the target allow the connection."""
    policies = select_policies(PODS[target], "Ingress")
    rules = [rule for policy in policies for rule in policy.get("ingress", [])]
    return not policies or any(matches_rule(rule, "from", PODS[source], port) for rule in rules)


def select_policies(pod: Pod, policy_type: str) -> list[KubernetesObject]:
    """Return the specs of the policies of k8s.yaml that select the pod."""
    if pod.namespace != NAMESPACE:
        return []
    specs = [each["spec"] for each in OBJECTS if each["kind"] == "NetworkPolicy"]
    return [
        spec
        for spec in specs
        if policy_type in spec["policyTypes"] and matches_labels(spec["podSelector"], pod.labels)
    ]


def matches_rule(rule: KubernetesObject, peers_key: str, pod: Pod, port: int) -> bool:
    """Whether a rule lists both the port and a peer that is the pod."""
    ports = {each["port"] for each in rule["ports"]}
    return port in ports and any(matches_peer(peer, pod) for peer in rule[peers_key])


def matches_peer(peer: KubernetesObject, pod: Pod) -> bool:
    """Whether a peer selects the pod. Without a namespaceSelector, it means its own namespace."""
    if "namespaceSelector" in peer:
        namespace_labels = {"kubernetes.io/metadata.name": pod.namespace}
        is_namespace_selected = matches_labels(peer["namespaceSelector"], namespace_labels)
    else:
        is_namespace_selected = pod.namespace == NAMESPACE
    return is_namespace_selected and matches_labels(peer.get("podSelector", {}), pod.labels)


def matches_labels(selector: KubernetesObject, labels: dict[str, str]) -> bool:
    """Whether the labels include all labels of the selector. An empty selector matches all."""
    required: dict[str, str] = selector.get("matchLabels", {})
    return required.items() <= labels.items()
