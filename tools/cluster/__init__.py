"""The make targets for Kubernetes: deploy, restart, rollback and the others (see actions.py)."""
