#!/bin/bash
# disttrain launch keeps a training job running: after a process dies, hangs or is stopped, the run reaches its last
# step with the same weights and curve as an undisturbed run, and leaves no process behind.
source "$(dirname "$0")/lib.sh"
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # launch sets them where they are needed.

steps=960
train=(train --config "$repository/Tests/Faults/faults.yaml" --set train.steps=$steps --set train.checkpoint_every=96
    --set train.log_every=28)
# Runs that are disturbed while training are slowed down from a step soon after their first checkpoint.
logged_before=4

trace() {
    sed -n 's/.*"kind":"step","step":\([0-9]*\),"loss":\([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"
}

# launch_run NAME [OPTION...]: starts a run in the background; $job is the launcher.
how=()
launch_run() {
    run=$scratch/$1
    shift
    "${how[@]}" env --default-signal=INT "$disttrain" launch -n 2 "$@" -- "${train[@]}" --output "$run" >"$run.log" 2>&1 &
    job=$!
}

# launch_slowly NAME [OPTION...]: the same, but the first attempt takes half a minute after the first checkpoint. A test
# that kills or stops it does not wait for that.
launch_slowly() {
    local how=(slowed "$scratch/$1" $logged_before)
    launch_run "$@"
}

# wait_for_step STEP: waits until the run has a checkpoint of this or a later step.
wait_for_step() {
    has_checkpoint() {
        ls "$run"/checkpoints | awk -F- -v step="$1" '/^step-/ && $2 + 0 >= step { found = 1 } END { exit !found }'
    }
    if ! (await_from "$job" "the checkpoint of step $1" has_checkpoint "$1"); then
        cat "$run.log" >&2
        exit 1
    fi
}

# rank_process RANK: prints the process ID of the rank, identified by the environment that mpirun sets.
rank_process() {
    local process
    for process in $(pgrep -f -- "disttrain train .*$run"); do
        if tr '\0' '\n' <"/proc/$process/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then
            echo "$process"
            return
        fi
    done
    fail "rank $1 of $run does not run"
}

# expect_end CODE: the launcher exits with CODE, and no process of the run remains.
expect_end() {
    local status=0
    wait "$job" || status=$?
    if [[ $status != "$1" ]]; then
        cat "$run.log" >&2
        fail "exit code $status of $run, expected $1"
    fi
    await "the end of all processes of $run" gone "disttrain train .*$run"
}

expect_said() { grep -qF -- "$1" "$run.log" || { cat "$run.log" >&2; fail "$run.log lacks '$1'"; }; }

# expect_same: the run is bitwise identical to the undisturbed one.
expect_same() {
    expect_status 0 "$disttrain" checkpoint diff "$scratch/undisturbed" "$run"
    cmp <(trace "$scratch/undisturbed") <(trace "$run") || fail "$run has another curve"
}

launch_run undisturbed
expect_end 0
[[ $(trace "$run" | wc -l) == $(((steps + 27) / 28)) ]] || fail "the undisturbed run has logged another number of steps"
expect_status 0 "$disttrain" status "$run" --ranks
expect_text "finished" 1
expect_text "2 ranks on $(hostname) (2)" 1
[[ -s $run/logs/attempt-0001/rank-0.log ]] || fail "no log of rank 0"

# A rank is killed; then mpirun is killed.
launch_slowly killed-rank
wait_for_step 96
kill -KILL "$(rank_process 1)"
expect_end 0
expect_same
expect_said "rank 1 on $(hostname): died"
grep -q "rank 1 .*: died; last seen" "$run/logs/attempt-0001/postmortem.txt" || fail "the post-mortem does not name the rank that died"
expect_status 0 "$disttrain" status "$run"
expect_text "2 since" 1
expect_text "last failure  attempt 1: rank 1" 1

launch_slowly killed-mpirun
wait_for_step 96
kill -KILL "$(pgrep -f -- "mpirun .*$run" | head -1)"
expect_end 0
expect_same

# A rank hangs, including rank 0, which watches the others.
for rank in 0 1; do
    launch_slowly "stopped-rank-$rank" --collective-timeout 10s
    wait_for_step 96
    kill -STOP "$(rank_process $rank)"
    expect_end 0
    expect_same
done

# Stopped by a signal: the run saves a checkpoint at the current step and exits with 75, then resumes.
for signal in TERM INT USR1; do
    launch_slowly "told-$signal"
    wait_for_step 96
    kill -$signal $job
    expect_end 75
    expect_said "with a checkpoint"
done
launch_run told-TERM
expect_end 0
expect_same
# Signals to a rank and to mpirun: a single run, which each signal stops where the previous one left it. (mpirun's
# handling of SIGTERM takes 15 s: see Tests/Cluster.)
at=96
for signal in INT TERM USR1 mpirun; do
    launch_slowly told-others
    wait_for_step $at
    if [[ $signal == mpirun ]]; then
        kill -USR1 "$(pgrep -f -- "mpirun .*$run" | head -1)"
    else
        kill -$signal "$(rank_process 1)"
    fi
    expect_end 75
    if [[ $signal != mpirun ]]; then expect_said "SIG$signal on rank 1"; fi
    at=$(($(sed -n 's/.*Stopped by .* after step \([0-9]*\) of.*/\1/p' "$run.log" | head -1) + 1))
done
launch_run told-others
expect_end 0
expect_same

# Stopped before the ranks have started: one step is still trained and saved. The tested moments are when the launcher
# has installed its handlers, has started mpirun, and has a rank process.
listens() {
    # Before it becomes the launcher, the process is a shell, which also handles this signal.
    [[ $(readlink "/proc/$job/exe") == "$(realpath "$disttrain")" ]] &&
        (( 16#$(awk '/^SigCgt/ { print $2 }' "/proc/$job/status") & 1 << (10 - 1) ))
}
has_mpirun() { pgrep -f -- "mpirun .*$run"; }
has_rank() (rank_process 1)
for moment in listens has_mpirun has_rank; do
    launch_slowly told-early
    await_from "$job" "the launcher to listen" listens
    await_from "$job" "$moment" "$moment"
    kill -USR1 "$job"
    expect_end 75
    expect_said "with a checkpoint"
done
launch_run told-early
expect_end 0
expect_same

# Stopped in the pause before a restart: the checkpoint exists, and nothing is restarted.
launch_slowly told-between
wait_for_step 96
kill -KILL "$(rank_process 1)"
await_from "$job" "the pause before a restart" has_line "restarting in" "$run.log"
kill -TERM $job
expect_end 75
launch_run told-between
expect_end 0
expect_same

# With a time limit, the run is started as often as necessary. A slowed run cannot finish within the first limit, and
# the limits grow until one is sufficient, however busy the machine is.
limit=2
count=0
while true; do
    if [[ $count == 0 ]]; then
        launch_slowly in-time --time-limit ${limit}s
    else
        launch_run in-time --time-limit ${limit}s
    fi
    status=0
    wait "$job" || status=$?
    count=$((count + 1))
    if [[ $status == 0 ]]; then break; fi
    [[ $status == 75 && $count -lt 12 ]] || { cat "$run.log" >&2; fail "exit code $status under a time limit"; }
    limit=$((2 * limit))
done
[[ $count -gt 1 ]] || fail "a run of $steps steps finished within the time limit"
expect_same

# A second Ctrl-C ends the job immediately.
launch_slowly impatient
wait_for_step 96
kill -STOP "$(rank_process 1)"
kill -INT "$job"
await_from "$job" "word of the first Ctrl-C" has_line "repeat to end immediately" "$run.log"
kill -INT "$job"
expect_end 130

# A failure that would recur is not retried, and repeated failures are retried a limited number of times.
expect_status 2 "$disttrain" launch -n 2 -- "${train[@]}" --set data.path=/nowhere --output "$scratch/refused"
[[ $(ls "$scratch/refused/logs") == attempt-0001 ]] || fail "a usage error was retried"

# The processes are killed before a checkpoint is due.
train+=(--set train.steps=1000000 --set train.checkpoint_every=0)
launch_run hopeless --max-restarts 2
while kill -0 "$job" 2>/dev/null; do
    pkill -KILL -f -- "disttrain train .*$run" || true
    sleep 0.2
done
expect_end 137
[[ $(ls "$run/logs" | wc -l) == 3 ]] || fail "$(ls "$run/logs" | wc -l) starts with --max-restarts 2, expected 3"
expect_said "the limit of 2 restarts without a new checkpoint is reached"
