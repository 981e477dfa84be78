"""What the make targets do with k8s.yaml. See actions.py."""
