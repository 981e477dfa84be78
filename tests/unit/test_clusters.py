"""The make targets for Kubernetes, by what the tools that they call were seen to print."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import PROJECT
from tools.cluster import images, local, rollout
from tools.cluster.kubectl import ClusterError, Kubectl
from tools.cluster.rollout import not_on_the_node, prove
from tools.cluster.secret import create_secret

IMAGE = "fastapi-k8s:0123456789ab"
EXEC = ("docker", "exec", "--interactive")
K3S = {"node.kubernetes.io/instance-type": "k3s"}


def node(
    name: str, runtime: str, provider: str = "", labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """What of `kubectl get nodes --output=json` tells the tools apart."""
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"providerID": provider} if provider else {},
        "status": {"nodeInfo": {"containerRuntimeVersion": runtime}},
    }


DESKTOP = "desktop-control-plane"
DESKTOPS = ["docker-desktop", "rancher-desktop", "colima", "colima-work", "orbstack"]
RECORDED = {
    "Docker Desktop, kubeadm": (
        "docker-desktop",
        [node("docker-desktop", "docker://29.1.3")],
        [],
    ),
    "Docker Desktop, kind": (
        "docker-desktop",
        [
            node(DESKTOP, "containerd://2.3.1", f"kind://docker/desktop/{DESKTOP}"),
            node("desktop-worker", "containerd://2.3.1", "kind://docker/desktop/desktop-worker"),
        ],
        [(*EXEC, DESKTOP, *local.IMPORT), (*EXEC, "desktop-worker", *local.IMPORT)],
    ),
    "kind": (
        "kind-demo",
        [node("demo-control-plane", "containerd://2.1.1", "kind://docker/demo/demo-control-plane")],
        [(*EXEC, "demo-control-plane", *local.IMPORT)],
    ),
    "minikube on Docker": (
        "minikube",
        [node("minikube", "docker://28.4.0", labels={"minikube.k8s.io/name": "minikube"})],
        [("minikube", "--profile=minikube", "image", "load", "-")],
    ),
    "minikube, two nodes and a profile": (
        "orders",
        [
            node("orders", "containerd://2.2.0", labels={"minikube.k8s.io/name": "orders"}),
            node("orders-m02", "containerd://2.2.0", labels={"minikube.k8s.io/name": "orders"}),
        ],
        [("minikube", "--profile=orders", "image", "load", "-")],
    ),
    "k3d": (
        "k3d-demo",
        [
            node("k3d-demo-server-0", "containerd://2.1.5-k3s1.33", "k3s://k3d-demo-server-0", K3S),
            node("k3d-demo-agent-0", "containerd://2.1.5-k3s1.33", "k3s://k3d-demo-agent-0", K3S),
        ],
        [
            (*EXEC, "k3d-demo-server-0", *local.IMPORT),
            (*EXEC, "k3d-demo-agent-0", *local.IMPORT),
        ],
    ),
    "Rancher Desktop, moby": (
        "rancher-desktop",
        [node("lima-rancher-desktop", "docker://20.10.11", "k3s://lima-rancher-desktop", K3S)],
        [],
    ),
    "Rancher Desktop, containerd": (
        "rancher-desktop",
        [node("lima-rancher-desktop", "containerd://1.6.8", "k3s://lima-rancher-desktop", K3S)],
        [("nerdctl", "--namespace=k8s.io", "load")],
    ),
    "Colima, docker": (
        "colima",
        [node("colima", "docker://27.4.0", "k3s://colima", K3S)],
        [],
    ),
    "Colima, containerd and a profile": (
        "colima-work",
        [node("colima-work", "containerd://2.1.5-k3s1", "k3s://colima-work", K3S)],
        [("colima", "--profile=work", "nerdctl", "--", "--namespace=k8s.io", "load")],
    ),
    "OrbStack": (
        "orbstack",
        [node("orbstack", "docker://28.5.2", "k3s://orbstack", K3S)],
        [],
    ),
    "any other": (
        "staging",
        [node("ip-10-0-0-7", "containerd://2.1.5-k3s1", "k3s://ip-10-0-0-7", K3S)],
        [],
    ),
}
"""Each cluster's context, its nodes, and what its image goes through."""


class Tools:
    """Programs that print what was recorded, alone on the PATH but for the shell's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"

    def add(self, name: str, script: str) -> None:
        program = self.folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls}"\n{script}\n')
        program.chmod(0o755)

    def answer(self, name: str, answers: dict[str, str]) -> None:
        """`answers` by the arguments that contain them; anything else fails."""
        cases = []
        for number, (arguments, output) in enumerate(answers.items()):
            file = self.folder / f"{name}.{number}"
            file.write_text(output)
            cases.append(f"*'{arguments}'*) cat '{file}' ;;")
        self.add(name, "\n".join(['case "$*" in', *cases, "*) exit 9 ;;", "esac"]))

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Tools(folder)


def as_list(items: list[Any]) -> str:
    return json.dumps({"items": items})


@pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED)
def test_each_cluster_gets_the_image_its_own_way(recorded: Any) -> None:
    context, nodes, expected = recorded
    assert list(dict.fromkeys(local.importers(context, nodes))) == expected


@pytest.mark.parametrize("context", ["kind-kind", "k3d-k3s-default", "minikube", *DESKTOPS])
def test_the_current_context_is_taken_if_it_is_local(tools: Tools, context: str) -> None:
    tools.answer("kubectl", {"config current-context": f"{context}\n"})
    assert local.choose_context("") == context


@pytest.mark.parametrize(
    "context",
    ["staging", "arn:aws:eks:eu-west-1:1:cluster/kind", "my-kind-1", "colimax", "gke_kind-1"],
)
def test_any_other_current_context_is_refused_by_name(tools: Tools, context: str) -> None:
    found = json.dumps({"contexts": [{"name": context, "context": {"cluster": context}}]})
    tools.answer("kubectl", {"current-context": f"{context}\n", "config view --minify": found})
    with pytest.raises(ClusterError, match=f"CONTEXT={context}$"):
        local.choose_context("")


def test_a_context_that_is_given_is_not_questioned(tools: Tools) -> None:
    assert local.choose_context("staging") == "staging"
    assert tools.called() == []


def test_a_profile_of_minikube_is_local_whatever_its_name(tools: Tools) -> None:
    mark = {"provider": "minikube.sigs.k8s.io", "version": "v1.38.1"}
    context = {"cluster": "orders", "extensions": [{"name": "context_info", "extension": mark}]}
    found = json.dumps({"contexts": [{"name": "orders", "context": context}]})
    tools.answer("kubectl", {"current-context": "orders\n", "config view --minify": found})
    assert local.choose_context("") == "orders"


def test_without_a_current_context_kubectl_s_own_words_are_shown(tools: Tools) -> None:
    tools.add("kubectl", "echo 'error: current-context is not set' >&2; exit 1")
    with pytest.raises(ClusterError, match="error: current-context is not set"):
        local.choose_context("")


def test_without_kubectl_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="kubectl is missing"):
        local.choose_context("")


KIND = Kubectl("kind-demo", "fastapi-k8s")


@pytest.fixture
def kind(tools: Tools) -> Tools:
    """A cluster of kind."""
    tools.answer("kubectl", {"get nodes": as_list(RECORDED["kind"][1])})
    return tools


def test_an_image_is_streamed_to_the_node(kind: Tools, tmp_path: Path) -> None:
    kind.add("docker", f'case $1 in save) echo archive ;; exec) cat >"{tmp_path}/got" ;; esac')
    local.load(KIND, IMAGE)
    assert (tmp_path / "got").read_text() == "archive\n"
    ran = [call for call in kind.called() if call.startswith("docker")]
    into = "docker exec --interactive demo-control-plane ctr --namespace=k8s.io images import -"
    assert sorted(ran) == sorted([f"docker save {IMAGE}", into])


def test_a_node_that_is_no_container_here_is_an_error(kind: Tools) -> None:
    missing = "Error response from daemon: No such container: demo-control-plane"
    kind.add(
        "docker", f'case $1 in save) echo archive ;; exec) echo "{missing}" >&2; exit 1 ;; esac'
    )
    with pytest.raises(ClusterError, match="docker ended with exit code 1"):
        local.load(KIND, IMAGE)


def test_an_image_that_cannot_be_saved_is_an_error_though_the_import_says_nothing(
    kind: Tools,
) -> None:
    missing = "Error response from daemon: reference does not exist"
    kind.add("docker", f'case $1 in save) echo "{missing}" >&2; exit 1 ;; exec) cat ;; esac')
    with pytest.raises(ClusterError, match="the image is not there"):
        local.load(KIND, IMAGE)


def test_without_the_cluster_s_own_tool_it_is_named(tools: Tools) -> None:
    tools.answer("kubectl", {"get nodes": as_list(RECORDED["minikube on Docker"][1])})
    tools.add("docker", "echo archive")
    with pytest.raises(ClusterError, match="minikube is missing"):
        local.load(Kubectl("minikube", "fastapi-k8s"), IMAGE)


def test_a_command_of_one_s_own_is_called_with_the_image_and_may_have_a_space(
    tools: Tools, tmp_path: Path
) -> None:
    tools.add("my loader", f'echo "$@" >"{tmp_path}/got"')
    local.load(KIND, IMAGE, "'my loader' --into somewhere")
    assert (tmp_path / "got").read_text() == f"--into somewhere {IMAGE}\n"
    assert not any(call.startswith("kubectl") for call in tools.called())


def test_a_command_of_one_s_own_that_fails_is_an_error() -> None:
    with pytest.raises(ClusterError, match="IMAGE_LOADER ended with exit code 3"):
        local.load(KIND, IMAGE, "exit 3; echo")


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def archive(files: dict[str, Any]) -> bytes:
    """What `docker save` writes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_an_image_is_known_by_its_index_its_manifests_and_its_configurations(
    tools: Tools, tmp_path: Path
) -> None:
    """As an engine with containerd's image store saves it: an index within an index."""
    saved = archive(
        {
            f"blobs/sha256/{'b' * 64}": {"manifests": [{"digest": digest("c")}]},
            f"blobs/sha256/{'c' * 64}": {"config": {"digest": digest("d")}, "layers": []},
            f"blobs/sha256/{'d' * 64}": {"config": {"Env": []}, "rootfs": {"diff_ids": []}},
            f"blobs/sha256/{'e' * 64}": b"\x1f\x8b\x08layer",
            "index.json": {"manifests": [{"digest": digest("b")}]},
            "manifest.json": [{"Config": f"blobs/sha256/{'d' * 64}"}],
        }
    )
    (tmp_path / "archive").write_bytes(saved)
    inspected = f'echo "{digest("b")}"'
    tools.add("docker", f'case $1 in save) cat "{tmp_path}/archive" ;; *) {inspected} ;; esac')
    assert images.digests(IMAGE) == {digest("b"), digest("c"), digest("d")}


IMAGE_IDS = {
    "containerd": digest("d"),
    "kind": f"docker.io/library/import-2026-11-21@{digest('c')}",
    "cri-dockerd": f"docker://{digest('d')}",
}
"""`imageID` of a container's status, as nodes were seen to report it."""


def pod(image_id: str, *, ready: bool = True, waiting: str = "") -> dict[str, Any]:
    """What of `kubectl get pods --output=json` the proof goes by."""
    state: dict[str, Any] = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    status = {"name": "api", "imageID": image_id, "state": state, "restartCount": 0}
    return {
        "metadata": {"name": "api-1"},
        "spec": {"containers": [{"name": "api", "image": IMAGE}]},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [status],
        },
    }


@pytest.mark.parametrize("image_id", IMAGE_IDS.values(), ids=IMAGE_IDS)
def test_a_pod_is_proved_by_whatever_digest_its_node_reports(tools: Tools, image_id: str) -> None:
    tools.answer("kubectl", {"get pods": as_list([pod(image_id)])})
    assert prove(KIND, IMAGE, {digest("c"), digest("d")}) == 1


def test_a_pod_that_runs_another_image_fails_the_proof_by_name(tools: Tools) -> None:
    tools.answer("kubectl", {"get pods": as_list([pod(digest("a"))])})
    with pytest.raises(ClusterError, match=f"Pod api-1, container api, runs {digest('a')}"):
        prove(KIND, IMAGE, {digest("d")})


def test_nothing_is_proved_by_no_pod(tools: Tools) -> None:
    tools.answer("kubectl", {"get pods": as_list([pod("", ready=False)])})
    with pytest.raises(ClusterError, match="No pod is ready"):
        prove(KIND, IMAGE, {digest("d")})


def deployment(image: str, part_of: str = "fastapi-k8s") -> dict[str, Any]:
    """What of `kubectl get deployment api --output=json` the tools go by."""
    return {
        "metadata": {"labels": {"app.kubernetes.io/part-of": part_of}},
        "spec": {"template": {"spec": {"containers": [{"name": "api", "image": image}]}}},
    }


def test_no_pods_at_all_are_no_surprise(tools: Tools) -> None:
    tools.answer("kubectl", {"get pods": as_list([])})
    assert KIND.pods() == []


@pytest.mark.parametrize("found", ["", json.dumps(deployment(IMAGE, "another"))])
def test_what_is_not_there_or_not_ours_is_not_touched(tools: Tools, found: str) -> None:
    tools.answer("kubectl", {"get deployment": found})
    with pytest.raises(ClusterError, match="Nothing is deployed on kind-demo in fastapi-k8s"):
        KIND.deployed()


def test_a_wait_goes_on_over_a_moment_without_the_api_server(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = iter(["refused", "not yet", "done"])

    def whole(_: Kubectl) -> bool:
        attempt = next(attempts)
        if attempt == "refused":
            raise ClusterError(attempt)
        return attempt == "done"

    answers = {"get deployment": json.dumps(deployment(IMAGE)), "get pods": as_list([])}
    tools.answer("kubectl", answers)
    monkeypatch.setattr(rollout, "whole", whole)
    rollout.wait(KIND, 30)
    assert next(attempts, None) is None


def test_a_wait_that_ends_says_what_keeps_pods_from_being_made(
    tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    quota = 'pods "api-1" is forbidden: exceeded quota: team'
    event = {
        "involvedObject": {"kind": "ReplicaSet", "name": "api-1"},
        "message": quota,
        "reason": "FailedCreate",
        "type": "Warning",
    }
    answers = {
        "get hpa": "",
        "get deployment": json.dumps(deployment(IMAGE)),
        "get pods": as_list([]),
        "get events": as_list([event, event]),
    }
    tools.answer("kubectl", answers)
    with pytest.raises(ClusterError, match=r"The rollout: not in 0 s\. TIMEOUT= gives more time\."):
        rollout.wait(KIND, 0)
    assert capsys.readouterr().err.count(f"Warning FailedCreate (ReplicaSet api-1): {quota}") == 1


def test_a_wait_that_ends_says_how_a_container_ended(
    tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    """An end by the memory limit leaves nothing in the log."""
    found = pod(digest("d"), ready=False, waiting="CrashLoopBackOff")
    found["status"]["phase"] = "Pending"
    (status,) = found["status"]["containerStatuses"]
    status["lastState"] = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    answers = {
        "get hpa": json.dumps({"spec": {"minReplicas": 2}}),
        "get deployment": json.dumps(deployment(IMAGE)),
        "get pods": as_list([found]),
        "get events": as_list([]),
    }
    tools.answer("kubectl", answers)
    with pytest.raises(ClusterError):
        rollout.wait(KIND, 0)
    assert "api ended: OOMKilled, code 137" in capsys.readouterr().err


CLAIM = {"metadata": {"creationTimestamp": "2026-11-21T07:00:00Z"}}
FIRST, LATER = "2026-11-21T07:00:02Z", "2026-11-21T09:00:00Z"
CREATING = [{"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]
CRASHING = [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]


@pytest.mark.parametrize(
    ("created", "statuses", "made"),
    [
        (FIRST, [], True),
        (FIRST, CREATING, True),
        (FIRST, CRASHING, False),
        (LATER, CREATING, False),
    ],
)
def test_a_new_password_is_made_only_if_postgresql_never_had_one(
    tools: Tools, created: str, statuses: list[Any], made: bool
) -> None:
    pod = {
        "metadata": {"creationTimestamp": created},
        "status": {"containerStatuses": statuses},
    }
    answers = {
        "get secret": "",
        "get pvc": json.dumps(CLAIM),
        "get pod": json.dumps(pod),
        "create --filename=-": "",
    }
    tools.answer("kubectl", answers)
    if made:
        create_secret(KIND)
    else:
        with pytest.raises(ClusterError, match="its password is gone"):
            create_secret(KIND)
    assert any(" create " in call for call in tools.called()) is made


def test_no_password_is_made_for_data_that_have_one_and_no_pod(tools: Tools) -> None:
    """As after `make undeploy`, if the Secret was removed too."""
    answers = {"get secret": "", "get pvc": json.dumps(CLAIM), "get pod": ""}
    tools.answer("kubectl", answers)
    with pytest.raises(ClusterError, match="its password is gone"):
        create_secret(KIND)


def test_an_image_that_cannot_be_saved_cannot_be_proved(tools: Tools) -> None:
    tools.add("docker", f'case $1 in save) exit 1 ;; *) echo "{digest("b")}" ;; esac')
    with pytest.raises(ClusterError, match=f"docker save {IMAGE} failed"):
        images.digests(IMAGE)


@pytest.mark.parametrize(("wanted", "found"), [(IMAGE, True), ("fastapi-k8s:later", False)])
def test_an_image_that_no_node_has_is_told_if_it_is_the_newest(
    tools: Tools, wanted: str, found: bool
) -> None:
    """A pod that is left over from an earlier attempt does not count."""
    answers = {
        "get deployment": json.dumps(deployment(wanted)),
        "get pods": as_list([pod("", ready=False, waiting="ErrImageNeverPull")]),
    }
    tools.answer("kubectl", answers)
    assert ("IMAGE_LOADER=" in not_on_the_node(KIND)) is found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"TIMEOUT": "soon"}, "TIMEOUT must be a number of seconds, not 'soon'."),
        ({"CONTEXT": ""}, "CONTEXT=staging"),
    ],
)
def test_the_make_targets_say_what_is_wrong(
    tools: Tools, given: dict[str, str], message: str
) -> None:
    found = json.dumps({"contexts": [{"name": "staging", "context": {"cluster": "staging"}}]})
    tools.answer("kubectl", {"current-context": "staging\n", "config view --minify": found})
    done = subprocess.run(
        [sys.executable, "-m", "tools.cluster", "status"],
        cwd=PROJECT,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
