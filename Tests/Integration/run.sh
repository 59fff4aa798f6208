#!/bin/bash
# Runs every test_*.sh in this folder, or those whose names are given, each under a time limit.
#
#   Tests/Integration/run.sh [NAME...]        test_NAME.sh; TEST_TIME_LIMIT=SECONDS ends a test that hangs (default 1200)
set -uo pipefail
cd "$(dirname "$0")" || exit 1

limit=${TEST_TIME_LIMIT:-1200}
tests=()
for name in "$@"; do tests+=("test_${name#test_}"); done
if [[ ${#tests[@]} == 0 ]]; then
    for file in test_*.sh; do tests+=("${file%.sh}"); done
fi

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for test in "${tests[@]}"; do
    start=$(date +%s.%N)
    status=0
    timeout --kill-after=10 "$limit" bash "./${test%.sh}.sh" >"$log" 2>&1 </dev/null || status=$?
    seconds=$(awk -v start="$start" -v end="$(date +%s.%N)" 'BEGIN { printf "%.1f", end - start }')
    if [[ $status == 0 ]]; then
        passed=$((passed + 1))
        echo "PASS  ${test%.sh}  ${seconds} s"
    else
        failed=$((failed + 1))
        if [[ $status == 124 || $status == 137 ]]; then echo "time limit of $limit s" >>"$log"; fi
        sed 's/^/      /' "$log"
        echo "FAIL  ${test%.sh}  ${seconds} s"
    fi
done
echo "$passed passed, $failed failed"
[[ $failed == 0 && $passed -gt 0 ]]
