#!/bin/sh
# Install uv into .uv, in the version that builds the image, with the venv or the pip of a Python on this machine.
set -eu

is_supported() { # PYTHON
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if is_supported "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo 'Python 3.11 or newer is not installed. Install it (as python3), or uv, and try again.' >&2
    exit 1
fi

requirement=uv==$(sed -n 's/^ARG UV_IMAGE=.*:\([0-9.]*\).*/\1/p' Dockerfile)
echo "Installing $requirement into .uv" >&2
rm -rf .uv
if "$python" -m venv .uv >/dev/null 2>&1; then
    .uv/bin/python -m pip install --quiet --disable-pip-version-check "$requirement"
elif "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m pip install --quiet --disable-pip-version-check --target .uv "$requirement"
else
    rm -rf .uv
    echo "$python has neither venv nor pip. Install one of them (on Debian: apt install python3-venv), or uv, and try again." >&2
    exit 1
fi
