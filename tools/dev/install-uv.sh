#!/bin/sh
# Install uv into .uv, in the version that builds the image, with the venv or the pip of a Python on this machine.
set -euf

# Settings of the user's pip that would refuse the installation or put uv into another folder.
export PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0

environment=.uv/environment
requirement=uv==$(sed -n 's/^FROM .*\/uv:\([0-9.]*\).*/\1/p' Dockerfile)

is_supported() { # PYTHON
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

has_pip() { # PYTHON
    "$1" -m pip --version >/dev/null 2>&1
}

# The exit code is 1 if the Python has neither venv nor pip. If it has one of them and the installation fails, the script ends.
install_with() { # PYTHON
    rm -rf .uv
    if "$1" -m venv "$environment" >/dev/null 2>&1 && has_pip "$environment/bin/python"; then
        set -- "$environment/bin/python" -m pip install
    elif has_pip "$1"; then
        rm -rf .uv # pip would not write into the folder of a venv that failed halfway
        set -- "$1" -m pip install --target "$environment"
    else
        rm -rf .uv
        return 1
    fi

    echo "Installing $requirement into .uv" >&2
    if ! "$@" --quiet --disable-pip-version-check --root-user-action ignore "$requirement"; then
        rm -rf .uv
        exit 1
    fi
    # Make takes uv as installed if this link exists, so it is the last step.
    mkdir .uv/bin
    ln -s ../environment/bin/uv .uv/bin/uv
}

unusable=
IFS=:
for name in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
    # All folders of the PATH: the first python3 may be that of an environment, which has no pip.
    for folder in $PATH; do
        python=$folder/$name
        if is_supported "$python"; then
            if install_with "$python"; then
                exit 0
            fi
            unusable=$python
        fi
    done
done

if [ -z "$unusable" ]; then
    echo 'Python 3.11 or newer is not installed. Install it (as python3), or uv, and try again.' >&2
else
    echo "$unusable has neither venv nor pip. Install one of them (on Debian: apt install python3-venv), or uv, and try again." >&2
fi
exit 1
