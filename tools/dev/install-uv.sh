#!/bin/sh
# Install uv into .uv, the version that the image is built with, by whatever this machine's Python brings: venv or pip.
set -eu

for python in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        found=$python
        break
    fi
done
if [ -z "${found:-}" ]; then
    echo 'Install Python 3.11 or newer (python3), or uv, and try again.' >&2
    exit 1
fi

uv=uv==$(sed -n 's/^ARG UV_IMAGE=.*:\([0-9.]*\).*/\1/p' Dockerfile)
echo "Installing $uv into .uv" >&2
rm -rf .uv
if "$found" -m venv .uv >/dev/null 2>&1; then
    .uv/bin/python -m pip install --quiet --disable-pip-version-check "$uv"
elif "$found" -m pip --version >/dev/null 2>&1; then
    "$found" -m pip install --quiet --disable-pip-version-check --target .uv "$uv"
else
    rm -rf .uv
    echo "Install venv or pip for $found (on Debian: apt install python3-venv), or uv, and try again." >&2
    exit 1
fi
