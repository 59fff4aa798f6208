#!/bin/bash
# Checks that swift-format does not cover: shell scripts parse, text files have no tabs, trailing spaces or long lines,
# and every target declares what it imports.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

faults=0
complain() {
    echo "$1" >&2
    faults=$((faults + 1))
}

while IFS= read -r file; do
    case $file in
    *.sh | *.sbatch | .ci/run)
        bash -n "$file" || complain "$file: does not parse"
        ;;
    esac
    case $file in
    *.c | *.cc | *.cpp | *.h | *.swift | *.sh | *.yaml | *.json | *.md)
        if grep -nP '\t' "$file" >&2; then complain "$file: tabs; indent with spaces"; fi
        ;;
    esac
    case $file in
    *.c | *.cc | *.cpp | *.h | *.swift | *.sh | *.yaml)
        if grep -nP ' +$' "$file" >&2; then complain "$file: spaces at the end of a line"; fi
        ;;
    esac
    case $file in
    *.c | *.cc | *.cpp | *.h)
        if grep -nP '^.{121,}$' "$file" >&2; then complain "$file: lines of more than 120 columns"; fi
        ;;
    esac
done < <(git ls-files --cached --others --exclude-standard | while IFS= read -r f; do [[ -f $f ]] && echo "$f"; done)

scripts/targets.py --check || complain "Package.swift and the diagram of its targets do not match the code"

if ((faults > 0)); then
    echo "lint: $faults faults" >&2
    exit 1
fi
echo "lint: no faults"
