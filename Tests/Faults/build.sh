#!/bin/bash
# Builds the fault library: Tests/Faults/build.sh OUTPUT
set -euo pipefail
compiler=$(command -v gcc || command -v clang)
exec "$compiler" -O1 -Wall -Wextra -Werror -shared -fPIC -o "$1" "$(dirname "$0")/interpose.c" -ldl
