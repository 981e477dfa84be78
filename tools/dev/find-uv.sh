#!/bin/sh
# Print the path of uv: of the installed uv if it is as new as pyproject.toml requires, or else of the uv in .uv, which may
# have to be installed. An older uv would fail with a usage text, because it lacks commands and options.
set -eu

required_version=$(sed -n 's/^required-version = ">=\(.*\)"/\1/p' pyproject.toml)
installed_version=$(uv --version 2>/dev/null | cut -d ' ' -f 2)
oldest_version=$(printf '%s\n' "$required_version" "$installed_version" | sort -t . -k 1,1n -k 2,2n -k 3,3n | head -n 1)
if [ "$oldest_version" = "$required_version" ]; then
    echo uv
else
    echo .uv/bin/uv
fi
