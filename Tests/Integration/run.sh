#!/bin/bash
# Runs every test_*.sh in this folder, or only the named ones, each with a time limit and several at a time.
#
#   Tests/Integration/run.sh [NAME...]        test_NAME.sh
#   TEST_JOBS=2                               number of tests that run at the same time
#   TEST_TIME_LIMIT=1200                      seconds after which a hanging test is killed
set -uo pipefail
cd "$(dirname "$0")" || exit 1

limit=${TEST_TIME_LIMIT:-1200}
jobs=${TEST_JOBS:-2}
tests=()
for name in "$@"; do tests+=("${name#test_}"); done
if [[ ${#tests[@]} == 0 ]]; then
    # The longest tests run first, so that none of them runs alone at the end.
    tests=(faults supervision training evaluate bad_input)
    for file in test_*.sh; do
        name=${file#test_}
        name=${name%.sh}
        [[ " ${tests[*]} " == *" $name "* ]] || tests+=("$name")
    done
fi

passed=0
failed=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# carry_out NAME: runs a test; the results are in the files NAME.log, NAME.seconds and NAME.status.
carry_out() {
    local start status=0
    start=$(date +%s.%N)
    timeout --kill-after=10 "$limit" bash "./test_$1.sh" >"$logs/$1.log" 2>&1 </dev/null || status=$?
    awk -v start="$start" -v end="$(date +%s.%N)" 'BEGIN { printf "%.1f", end - start }' >"$logs/$1.seconds"
    echo "$status" >"$logs/$1.status"
}

# report: prints the results that are new since the last call.
report() {
    local file name status
    for file in "$logs"/*.status; do
        [[ -s $file ]] || continue
        name=$(basename "$file" .status)
        status=$(<"$file")
        if [[ $status == 0 ]]; then
            passed=$((passed + 1))
            echo "PASS  $name  $(<"$logs/$name.seconds") s"
        else
            failed=$((failed + 1))
            if [[ $status == 124 || $status == 137 ]]; then echo "time limit of $limit s" >>"$logs/$name.log"; fi
            sed 's/^/      /' "$logs/$name.log"
            echo "FAIL  $name  $(<"$logs/$name.seconds") s"
        fi
        rm "$file"
    done
}

running=0
for name in "${tests[@]}"; do
    if ((running == jobs)); then
        wait -n
        running=$((running - 1))
        report
    fi
    carry_out "$name" &
    running=$((running + 1))
done
while ((running > 0)); do
    wait -n
    running=$((running - 1))
    report
done
echo "$passed passed, $failed failed"
[[ $passed == "${#tests[@]}" ]]
