"""A deployment of this checkout for a test or a benchmark, and a client pod that sends requests."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import uuid4

from fastapi_k8s import NAME
from tools.benchmarks import load_generator
from tools.benchmarks.load_generator import Failure, Load
from tools.checkout import PROJECT, copy_checkout, get_docker_environment, run_command

from .kubectl import ClusterError, Kubectl
from .rollout import get_deployed_image

LOAD_CLIENTS = 60
LOAD_PAUSE_SECONDS = 0.04
"""60 clients send at most 1,500 requests/s, and about half of that on two cores that also run the
cluster."""
LOAD_PROGRAM = Path(load_generator.__file__).read_text()

REQUEST_PROGRAM = """
import json, sys, urllib.error, urllib.request

method, url, body, timeout_seconds = sys.argv[1:]
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(url, body.encode() or None, headers, method=method)
try:
    with urllib.request.urlopen(request, timeout=float(timeout_seconds)) as response:
        print(json.dumps([response.status, response.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
except OSError as error:
    print(json.dumps([0, repr(error)]))
"""
"""Runs in the client pod, and prints a Response."""


class Response(NamedTuple):
    """An HTTP response, or the error in `body` with status 0."""

    status: int
    body: str


class RunningLoad:
    """The load generator in the client pod."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read_statistics(self) -> Load:
        """Return what has become of all requests so far."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.read_next_line()

    def read_next_line(self) -> Load:
        """Wait for the statistics that the program prints next."""
        assert self._process.stdout
        statistics = json.loads(self._process.stdout.readline())
        failures = [Failure(**failure) for failure in statistics.pop("failures")]
        return Load(failures=failures, **statistics)


@dataclass(frozen=True)
class EphemeralDeployment:
    """Runs make targets in a copy of the checkout, with its own image name and namespaces.

    `kubectl` uses the namespace of the deployment, `client_kubectl` the namespace of the pod that
    sends requests. A pod of another namespace is what most clients in a cluster are.
    """

    image_name: str
    checkout: Path
    kubectl: Kubectl
    client_kubectl: Kubectl

    @property
    def url(self) -> str:
        """The URL of the API's Service, by its cluster IP."""
        service = self.kubectl.get_existing("service", "api")
        return f"http://{service['spec']['clusterIP']}"

    def try_make(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run make with the variables of this deployment. The target may fail."""
        variables = {
            "CONTEXT": self.kubectl.context,
            "NAMESPACE": self.kubectl.namespace,
            "IMAGE_NAME": self.image_name,
        }
        environment = get_docker_environment()
        environment["UV_NO_SYNC"] = "1"  # .venv belongs to the original checkout
        for name in ("KUBECONFIG", "IMAGE_LOADER"):
            if name in os.environ:
                environment[name] = os.environ[name]
        return subprocess.run(
            ["make", *arguments, *(f"{name}={value}" for name, value in variables.items())],
            cwd=self.checkout,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def make(self, *arguments: str, stdin: str = "") -> str:
        """Run make and return its standard output. Raises ClusterError if the target fails."""
        process = self.try_make(*arguments, stdin=stdin)
        if process.returncode != 0:
            command = " ".join(["make", *arguments])
            raise ClusterError(f"{command} failed:\n{process.stdout}{process.stderr}")
        return process.stdout

    def build_image(self, commit: str) -> str:
        """Build an image that reports `commit`, tag it `latest`, and return its ID."""
        self.make("docker-build", f"GIT_SHA={commit}")
        latest = f"{self.image_name}:latest"
        return run_command(["docker", "image", "inspect", "--format={{.Id}}", latest]).strip()

    @contextmanager
    def edited_file(self, name: str, old: str, new: str) -> Iterator[None]:
        """Replace text in a file of the copied checkout while the block runs."""
        file = self.checkout / name
        original = file.read_text()
        if original.count(old) != 1:
            raise ValueError(f"{name} does not contain exactly once: {old}")
        file.write_text(original.replace(old, new))
        try:
            yield
        finally:
            file.write_text(original)

    @contextmanager
    def added_file(self, name: str, content: str) -> Iterator[None]:
        """Add a file to the copied checkout while the block runs."""
        file = self.checkout / name
        file.write_text(content)
        try:
            yield
        finally:
            file.unlink()

    def pod_names(self) -> list[str]:
        """Return the names of the API's pods."""
        return [pod["metadata"]["name"] for pod in self.kubectl.list_pods()]

    def count_ready_pods(self) -> int:
        """Return how many of the API's pods are ready."""
        count: int = self.kubectl.get_application_object()["status"].get("readyReplicas", 0)
        return count

    def set_pod_limits(self, min_replicas: int, max_replicas: int) -> None:
        """Set the autoscaler's minimum and maximum."""
        patch = {"spec": {"minReplicas": min_replicas, "maxReplicas": max_replicas}}
        self.kubectl.run("patch", "hpa", "api", f"--patch={json.dumps(patch)}")

    def reported_commits(self) -> set[str]:
        """Return the commits that the pods report, each at its own address.

        Pods that do not respond are left out.
        """
        commits = set()
        for pod in self.kubectl.list_pods():
            ip = pod["status"].get("podIP")
            if ip is None:
                continue  # not started yet
            response = self.send_to("GET", f"http://{ip}:8000/version")
            if response.status != 0:
                commits.add(json.loads(response.body)["commit"])
        return commits

    def start_client(self) -> None:
        """Start the client pod, with the deployed image because it contains Python."""
        self.client_kubectl.run("create", "namespace", self.client_kubectl.namespace)
        start_idle_pod(self.client_kubectl, "client", get_deployed_image(self.kubectl))

    def run_in_client(self, program: str, *arguments: str) -> str:
        """Run a Python program in the client pod and return what it prints."""
        return run_python(self.client_kubectl, "client", program, *arguments)

    def send(self, method: str, path: str, body: str = "", timeout_seconds: float = 10) -> Response:
        """Send a request from the client pod to the API's Service."""
        return self.send_to(method, self.url + path, body, timeout_seconds)

    def send_to(
        self, method: str, url: str, body: str = "", timeout_seconds: float = 10
    ) -> Response:
        """Send a request from the client pod to any URL."""
        output = self.run_in_client(REQUEST_PROGRAM, method, url, body, str(timeout_seconds))
        status, response_body = json.loads(output)
        return Response(status=status, body=response_body)

    @contextmanager
    def load(
        self,
        path: str = "/version",
        clients: int = LOAD_CLIENTS,
        pause_seconds: float = LOAD_PAUSE_SECONDS,
    ) -> Iterator[RunningLoad]:
        """Send requests from the client pod while the block runs, half on kept-alive connections.

        The block starts when the API has responded without a failure for a second.
        """
        arguments = [LOAD_PROGRAM, self.url + path, str(clients), str(pause_seconds)]
        command = self.client_kubectl.command_line(
            "exec", "--stdin", "client", "--", "python", "-c", *arguments
        )
        # The program ends when its standard input is closed, as the inner `with` does.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            running_load = RunningLoad(process)
            running_load.read_next_line()
            yield running_load
        if process.returncode != 0:
            raise ClusterError(f"The load generator failed with exit code {process.returncode}.")

    def delete(self) -> None:
        """Delete this deployment's namespaces and all tags of its image.

        Its namespaces are those whose names begin with its name.
        """
        names = [each["metadata"]["name"] for each in self.kubectl.get_all("namespaces")]
        namespaces = [name for name in names if name.startswith(self.image_name)]
        if namespaces:
            self.kubectl.run(
                "delete", "namespace", *namespaces, "--ignore-not-found", "--timeout=120s"
            )
        self.delete_images()

    def delete_images(self) -> None:
        """Delete all tags of this deployment's image."""
        # By tag: an image ID may have tags of other tests.
        list_tags = ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", self.image_name]
        tags = run_command(list_tags).split()
        if tags:
            run_command(["docker", "image", "rm", *tags])


@contextmanager
def ephemeral_deployment(context: str) -> Iterator[EphemeralDeployment]:
    """Prepare a deployment on a cluster, and delete its namespaces and images at the end.

    The block deploys it with `make("deploy")` and starts the client with `start_client()`.
    """
    name = f"{NAME}-test-{uuid4().hex[:8]}"
    with TemporaryDirectory() as folder:
        checkout = copy_checkout(Path(folder))
        (checkout / ".venv").symlink_to(PROJECT / ".venv")
        deployment = EphemeralDeployment(
            image_name=name,
            checkout=checkout,
            kubectl=Kubectl(context, name),
            client_kubectl=Kubectl(context, f"{name}-client"),
        )
        try:
            yield deployment
        finally:
            deployment.delete()


def start_idle_pod(kubectl: Kubectl, name: str, image: str) -> None:
    """Start a pod that only waits, so that programs can run in it. Pod Security admits the pod."""
    security_context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["python", "-c", "import signal; signal.sigwait([signal.SIGTERM])"],
        "securityContext": security_context,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "automountServiceAccountToken": False},
    }
    kubectl.run("create", "--filename=-", stdin=json.dumps(pod))
    kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def run_python(kubectl: Kubectl, pod: str, program: str, *arguments: str) -> str:
    """Run a Python program in the first container of a pod and return what it prints."""
    return kubectl.run("exec", pod, "--", "python", "-c", program, *arguments)
