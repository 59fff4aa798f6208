#!/bin/bash
# Cross-checks the program with PyTorch and diffusers: each side opens what the other writes, and the numbers agree.
# Creates the Python environment if it does not exist.
#
#   Tests/Python/run.sh VENV [PYTEST-OPTION...]     -k NAME, --seed N, --cases N, ...
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$1
shift

# Installs exactly these versions, in a new environment or in an existing one.
stamp=$venv/.disttrain-requirements
if ! cmp -s "$here/requirements.txt" "$stamp"; then
    [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$stamp"
fi

# Do not download anything from a model hub.
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
cd "$here"
exec "$venv/bin/python" -m pytest "$@"
