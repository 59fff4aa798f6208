#!/bin/bash
# Cross-checks the program live against PyTorch and diffusers: whatever one side writes, the other opens, and the
# numbers agree. Builds the Python environment where it is not there.
#
#   Tests/Python/run.sh VENV [PYTEST-OPTION...]     -k NAME, --seed N, --cases N, ...
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$1
shift

# Built for exactly these versions, or (an environment of one's own) brought to them once.
stamp=$venv/.disttrain-requirements
if ! cmp -s "$here/requirements.txt" "$stamp"; then
    [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$stamp"
fi

# Nothing is fetched from a model hub.
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
cd "$here"
exec "$venv/bin/python" -m pytest "$@"
