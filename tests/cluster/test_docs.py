"""A cluster accepts what docs/production.md shows."""

from tools.checkout import PROJECT
from tools.cluster.ephemeral import EphemeralDeployment


def test_the_policy_for_a_mesh_is_accepted(deployment: EphemeralDeployment) -> None:
    page = (PROJECT / "docs" / "production.md").read_text()
    policy = page.split("# deploy/production/mesh.yaml\n")[1].split("```")[0]
    deployment.kubectl.run("apply", "--dry-run=server", "--filename=-", stdin=policy)
