"""The make targets use a local context by default, and any other context only by name."""

import json

import pytest

from tests.unit.cluster.conftest import FakeCommands
from tools.cluster.contexts import choose_context
from tools.cluster.kubectl import ClusterError

LOCAL_CONTEXTS = [
    "kind-kind",
    "k3d-k3s-default",
    "minikube",
    "docker-desktop",
    "rancher-desktop",
    "colima",
    "colima-work",
    "orbstack",
]
OTHER_CONTEXTS = [
    "staging",
    "arn:aws:eks:eu-west-1:1:cluster/kind",
    "my-kind-1",
    "colimax",
    "gke_kind-1",
]


@pytest.mark.parametrize("context", LOCAL_CONTEXTS)
def test_the_current_context_is_used_if_it_is_local(commands: FakeCommands, context: str) -> None:
    commands.add_responses("kubectl", {"config current-context": f"{context}\n"})
    assert choose_context("") == context


@pytest.mark.parametrize("context", OTHER_CONTEXTS)
def test_another_current_context_is_refused_and_named(commands: FakeCommands, context: str) -> None:
    view = {"contexts": [{"name": context, "context": {"cluster": context}}]}
    responses = {"current-context": f"{context}\n", "config view --minify": json.dumps(view)}
    commands.add_responses("kubectl", responses)
    with pytest.raises(ClusterError, match=f"CONTEXT={context}$"):
        choose_context("")


def test_a_requested_context_is_used_without_a_check(commands: FakeCommands) -> None:
    assert choose_context("staging") == "staging"
    assert commands.calls() == []


def test_a_minikube_profile_is_local_whatever_its_name(commands: FakeCommands) -> None:
    provider = {"provider": "minikube.sigs.k8s.io", "version": "v1.38.1"}
    context = {"cluster": "orders", "extensions": [{"name": "context_info", "extension": provider}]}
    view = {"contexts": [{"name": "orders", "context": context}]}
    responses = {"current-context": "orders\n", "config view --minify": json.dumps(view)}
    commands.add_responses("kubectl", responses)
    assert choose_context("") == "orders"


def test_without_a_current_context_the_message_of_kubectl_is_shown(commands: FakeCommands) -> None:
    commands.add("kubectl", "echo 'error: current-context is not set' >&2; exit 1")
    with pytest.raises(ClusterError, match="error: current-context is not set"):
        choose_context("")


def test_without_kubectl_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="kubectl is not installed"):
        choose_context("")
