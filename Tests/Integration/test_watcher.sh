#!/bin/bash
# Ranks watch each other from MPI_Init on, and connections of unrelated processes to the watcher's port do not affect a
# job.
source "$(dirname "$0")/lib.sh"
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # launch sets them where they are needed.

train=(train --config "$repository/Tests/Faults/faults.yaml" --set train.checkpoint_every=0 --set train.log_every=100)

# start NAME LAUNCH-OPTION... -- TRAIN-OPTION...: starts a job of 2 ranks in the background; $job is the launcher.
start() {
    run=$scratch/$1
    shift
    local options=()
    while [[ $1 != -- ]]; do options+=("$1"); shift; done
    shift
    "$disttrain" launch -n 2 "${options[@]}" -- "${train[@]}" --output "$run" "$@" >"$run.log" 2>&1 &
    job=$!
}

# find_rank RANK: waits for the rank's process and sets $process.
find_rank() {
    local candidate
    while kill -0 $job 2>/dev/null; do
        for candidate in $(pgrep -f -- "disttrain train .*$run"); do
            if tr '\0' '\n' <"/proc/$candidate/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then
                process=$candidate
                return
            fi
        done
        sleep 0.01
    done
    cat "$run.log" >&2
    fail "rank $1 of $run does not run"
}

expect_end() {
    local status=0
    wait $job || status=$?
    [[ " $* " == *" $status "* ]] || { cat "$run.log" >&2; fail "exit code $status of $run, expected one of $*"; }
}

# The soft limit of open files is raised; if the hard limit is too low, a warning is printed before anything starts.
expect_status 0 bash -c "ulimit -Sn 56; exec '$disttrain' launch -n 12 --dry-run -- self-test communication"
expect_no_text "ulimit -n"
expect_status 0 bash -c "ulimit -n 56; exec '$disttrain' launch -n 12 --dry-run -- self-test communication"
expect_text "at most 56 files may be open (ulimit -n)" 1

# A rank that hangs before training begins, while the model, which is large here, is being created.
start early --collective-timeout 10s --max-restarts 0 -- --set train.steps=10 \
    --set 'model.block_out_channels=[1024]' --set model.layers_per_block=2
find_rank 1
until grep -qsx "rank reporter" /proc/"$process"/task/*/comm; do
    kill -0 $job 2>/dev/null || { cat "$run.log" >&2; fail "rank 1 is not monitored before training"; }
done
kill -STOP "$process"
# A crash code: rank 0's own, or 137 if mpirun still waited for the stopped rank and the launcher killed it.
expect_end 1 137
grep -q "rank 1 on $(hostname): no heartbeat for .*, last seen .* in step 0" "$run.log" ||
    { cat "$run.log" >&2; fail "the stopped rank 1 was not detected"; }
[[ ! -e $run/status.json ]] || ! grep -q '"stepSeconds":[1-9]' "$run/status.json" || fail "training had already started"

# Unrelated processes connect. The soft limit is as low as on many systems, and the rank raises it.
ulimit -Sn 256
start strangers -- --set train.steps=1000000
find_rank 0
until [[ -s $run/status.json ]]; do kill -0 $job || fail "the job ended: $(cat "$run.log")"; sleep 0.05; done
grep -q "^Max open files *$(ulimit -Hn) " "/proc/$process/limits" ||
    fail "rank 0 may open few files: $(grep files "/proc/$process/limits")"
"$repository/Tests/Integration/strangers.py" "$process" || { tail -5 "$run.log" >&2; fail "unrelated connections disturbed the job"; }
kill -USR1 $job
expect_end 75
[[ $(ls "$run/logs") == attempt-0001 ]] || fail "unrelated connections caused a restart"
