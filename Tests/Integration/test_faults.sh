#!/bin/bash
# Faults injected into training: the short form of Tests/Faults/run.py. The full form is `make test-faults`.
source "$(dirname "$0")/lib.sh"

"$repository/Tests/Faults/run.py" --program "$disttrain"
