"""The NetworkPolicies allow only the connections that are needed.

The tests evaluate the policies by the rules of Kubernetes: policies are additive, a pod without a
policy accepts everything, and a connection has to be allowed at both ends.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from ipaddress import ip_address, ip_network
from typing import NamedTuple

import pytest

from tests.manifest.conftest import LOCAL, MANIFESTS, Manifest
from tools.cluster.kubectl import KubernetesObject

NAMESPACE = LOCAL.find("Namespace")["metadata"]["name"]
PORTS = {
    "api": 8000,
    "db": 5432,
    "redis": 6379,
    "dns": 53,
    "external database": 5432,
    "external cache": 6379,
    "collector": 4318,
    "issuer": 443,
}


class Peer(NamedTuple):
    """What a NetworkPolicy can select a peer by: a pod, or a server outside of the cluster.

    A server has no namespace, and the address of a pod is in no network that a policy lists.
    """

    namespace: str
    labels: dict[str, str]
    address: str


def pod(namespace: str, labels: dict[str, str]) -> Peer:
    return Peer(namespace, labels, address="10.244.0.7")


def server(address: str) -> Peer:
    return Peer(namespace="", labels={}, address=address)


OTHER_PEERS = {
    "pod of another namespace": pod("another", {"app": "client"}),
    "pod of the same namespace": pod(NAMESPACE, {"app": "client"}),
    "dns": pod("kube-system", {"k8s-app": "kube-dns"}),
    "external database": server("10.20.0.7"),
    "external cache": server("10.40.0.7"),
    "collector": server("10.30.0.7"),
    "issuer": server("10.50.0.7"),
    "another server": server("192.0.2.7"),
}
ALWAYS_ALLOWED = {("pod of another namespace", "api"), ("dns", "api"), ("api", "dns")}
"""The connections from and to pods of the namespace that every manifest allows."""

ALLOWED_CONNECTIONS = {
    "k8s.yaml": {("api", "db"), ("api", "redis")},
    "production": {("api", "redis"), ("api", "external database"), ("api", "collector")},
    "production-with-all-components": {
        ("api", "external cache"),
        ("api", "external database"),
        ("api", "collector"),
        ("api", "issuer"),
    },
}


def list_peers(manifest: Manifest) -> dict[str, Peer]:
    """Return the pods of the manifest, other pods, and servers outside of the cluster."""
    pods: dict[str, Peer] = {}
    for name, template in manifest.pod_templates().items():
        pods[name] = pod(NAMESPACE, template["metadata"]["labels"])
    return {**pods, **OTHER_PEERS}


@pytest.mark.parametrize(
    ("manifest", "source"),
    [(manifest, source) for manifest in MANIFESTS for source in list_peers(manifest)],
    ids=str,
)
def test_only_the_listed_connections_are_allowed(manifest: Manifest, source: str) -> None:
    peers = list_peers(manifest)
    allowed = ALWAYS_ALLOWED | ALLOWED_CONNECTIONS[manifest.name]
    for target in PORTS.keys() & peers.keys() - {source}:
        if NAMESPACE in {peers[source].namespace, peers[target].namespace}:
            actual = is_allowed(manifest, peers[source], peers[target], PORTS[target])
            assert actual == ((source, target) in allowed), target


@pytest.mark.parametrize(
    ("manifest", "target"),
    [(manifest, target) for manifest in MANIFESTS for target in manifest.pod_templates()],
    ids=str,
)
def test_no_other_port_is_open(manifest: Manifest, target: str) -> None:
    peers = list_peers(manifest)
    for source in ("pod of another namespace", "api"):
        assert not is_allowed(manifest, peers[source], peers[target], 22)


def is_allowed(manifest: Manifest, source: Peer, target: Peer, port: int) -> bool:
    """Whether the source may connect to a port of the target."""
    egress = select_policies(manifest, source, "Egress")
    ingress = select_policies(manifest, target, "Ingress")
    return allows(egress, "egress", "to", target, port) and allows(
        ingress, "ingress", "from", source, port
    )


def select_policies(manifest: Manifest, peer: Peer, policy_type: str) -> list[KubernetesObject]:
    """Return the specs of the manifest's policies that select the pod."""
    if peer.namespace != NAMESPACE:
        return []
    specs = [each["spec"] for each in manifest.find_all("NetworkPolicy")]
    return [
        spec
        for spec in specs
        if policy_type in spec["policyTypes"] and matches_labels(spec["podSelector"], peer.labels)
    ]


def allows(
    policies: list[KubernetesObject], rules_key: str, peers_key: str, peer: Peer, port: int
) -> bool:
    """Whether the policies of one end allow a connection with the peer at the other end."""
    rules = [rule for policy in policies for rule in policy.get(rules_key, [])]
    return not policies or any(matches_rule(rule, peers_key, peer, port) for rule in rules)


def matches_rule(rule: KubernetesObject, peers_key: str, peer: Peer, port: int) -> bool:
    """Whether a rule lists both the port and the peer."""
    ports = {each["port"] for each in rule["ports"]}
    return port in ports and any(matches_peer(each, peer) for each in rule[peers_key])


def matches_peer(selector: KubernetesObject, peer: Peer) -> bool:
    """Whether a rule's peer is this one. Without a namespaceSelector, its own namespace counts."""
    if "ipBlock" in selector:
        return ip_address(peer.address) in ip_network(selector["ipBlock"]["cidr"])
    if not peer.namespace:
        return False
    if "namespaceSelector" in selector:
        namespace_labels = {"kubernetes.io/metadata.name": peer.namespace}
        is_namespace_selected = matches_labels(selector["namespaceSelector"], namespace_labels)
    else:
        is_namespace_selected = peer.namespace == NAMESPACE
    return is_namespace_selected and matches_labels(selector.get("podSelector", {}), peer.labels)


def matches_labels(selector: KubernetesObject, labels: dict[str, str]) -> bool:
    """Whether the labels include all labels of the selector. An empty selector matches all."""
    required: dict[str, str] = selector.get("matchLabels", {})
    return required.items() <= labels.items()
