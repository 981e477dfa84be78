"""A cluster accepts what docs/production.md shows, and streams end as docs/streams.md says."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.template import event_streams
from tests.template.event_streams import measure_exit_seconds
from tests.template.pages import documented_events
from tools.checkout import PROJECT
from tools.cluster.ephemeral import EphemeralDeployment
from tools.dev.servers import wait_until

STREAMS = 50
EVENT_STREAMS_PROGRAM = Path(event_streams.__file__).read_text()


def test_the_policy_for_a_mesh_is_accepted(deployment: EphemeralDeployment) -> None:
    page = (PROJECT / "docs" / "production.md").read_text()
    policy = page.split("# deploy/production/mesh.yaml\n")[1].split("```")[0]
    deployment.kubectl.run("apply", "--dry-run=server", "--filename=-", stdin=policy)


class RunningStreams:
    """The clients of the event streams in the client pod."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read_statistics(self) -> event_streams.Statistics:
        """Return what has become of the streams so far."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return event_streams.Statistics(**json.loads(self._process.stdout.readline()))

    def wait_for_events(self) -> None:
        """Wait until all streams are open, and have received two events on average."""
        wait_until(lambda: self.read_statistics().open_streams == STREAMS, 30, "the streams")
        enough = self.read_statistics().event_count + 2 * STREAMS
        wait_until(lambda: self.read_statistics().event_count >= enough, 30, "the events")


@contextmanager
def open_streams(deployment: EphemeralDeployment) -> Iterator[RunningStreams]:
    """Receive events in the client pod while the block runs."""
    program = ["python", "-c", EVENT_STREAMS_PROGRAM, f"{deployment.url}/events", str(STREAMS)]
    command = deployment.client_kubectl.command_line("exec", "--stdin", "client", "--", *program)
    # The program ends when its standard input is closed, as `with` does.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        streams = RunningStreams(process)
        streams.wait_for_events()
        yield streams


@contextmanager
def logs_of_pods(deployment: EphemeralDeployment, folder: Path) -> Iterator[list[Path]]:
    """Write the log of each pod to a file while the block runs, also if the pod is deleted."""
    files = [folder / name for name in deployment.pod_names()]
    with ExitStack() as stack:
        processes = []
        for file in files:
            command = deployment.kubectl.command_line("logs", "--follow", file.name)
            output = stack.enter_context(file.open("w"))
            processes.append(stack.enter_context(subprocess.Popen(command, stdout=output)))
        yield files
        for process in processes:
            process.wait(30)


def test_a_restart_ends_50_streams_completely_and_their_clients_continue(
    deployment: EphemeralDeployment, tmp_path: Path
) -> None:
    """No event is missing, doubled or incomplete. Each pod exits 3 s after its drain of 5 s."""
    with documented_events(deployment.checkout):
        deployment.build_image("events")
    deployment.make("restart")
    with logs_of_pods(deployment, tmp_path) as logs, open_streams(deployment) as streams:
        deployment.make("restart")
        streams.wait_for_events()
        statistics = streams.read_statistics()
    assert statistics.failures == []
    assert statistics.refused_connections == 0
    assert statistics.ended_streams >= STREAMS
    assert len(logs) == 2
    for log in logs:
        text = log.read_text()
        assert 5 < measure_exit_seconds(text) < 8
        assert "cut_by" not in text
        assert '"ERROR"' not in text
