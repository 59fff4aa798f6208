#!/bin/bash
# disttrain launch keeps a training going: whatever dies, hangs or is told to stop, the run reaches its last step with
# the weights and the curve of one that nothing happened to, and leaves no process behind.
source "$(dirname "$0")/lib.sh"
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # launch sets them where they are needed.

steps=6000
train=(train --config "$repository/Tests/Faults/faults.yaml" --set train.steps=$steps --set train.checkpoint_every=600
    --set train.log_every=70)

trace() {
    sed -n 's/.*"kind":"step","step":\([0-9]*\),"loss":\([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"
}

# launch_run NAME [OPTION...]: starts it behind this script; $job is the launcher.
launch_run() {
    run=$scratch/$1
    shift
    env --default-signal=INT "$disttrain" launch -n 2 "$@" -- "${train[@]}" --output "$run" >"$run.log" 2>&1 &
    job=$!
}

# wait_for_step STEP: until the run has a checkpoint of it or of a later one.
wait_for_step() {
    local attempt
    for attempt in $(seq 6000); do
        if ls "$run"/checkpoints 2>/dev/null | awk -F- -v step="$1" '/^step-/ && $2 + 0 >= step { found = 1 }
                END { exit !found }'; then
            return
        fi
        sleep 0.05
    done
    cat "$run.log" >&2
    fail "$run has no checkpoint of step $1 after $((attempt / 20)) s"
}

# rank_process RANK: its process, by the environment that mpirun gives it.
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

# expect_end CODE
expect_end() {
    local status=0
    wait "$job" || status=$?
    if [[ $status != "$1" ]]; then
        cat "$run.log" >&2
        fail "exit code $status of $run, expected $1"
    fi
    local attempt
    for attempt in $(seq 50); do
        if ! pgrep -f -- "disttrain train .*$run" >/dev/null; then return; fi
        sleep 0.1
    done
    pgrep -af -- "$run" >&2
    fail "processes of $run are left $((attempt / 10)) s after its end"
}

expect_said() { grep -qF -- "$1" "$run.log" || { cat "$run.log" >&2; fail "$run.log lacks '$1'"; }; }

# expect_same: the run is the undisturbed one, to the bit.
expect_same() {
    expect_status 0 "$disttrain" checkpoint diff "$scratch/undisturbed" "$run"
    cmp <(trace "$scratch/undisturbed") <(trace "$run") || fail "$run has another curve"
}

began=$SECONDS
launch_run undisturbed
expect_end 0
took=$((SECONDS - began))
[[ $(trace "$run" | wc -l) == $(((steps + 69) / 70)) ]] || fail "the undisturbed run has logged another number of steps"
expect_status 0 "$disttrain" status "$run" --ranks
expect_text "finished" 1
expect_text "2 ranks on $(hostname) (2)" 1
[[ -s $run/logs/attempt-0001/rank-0.log ]] || fail "no log of rank 0"

# A rank that is killed, mpirun that is killed.
launch_run killed-rank
wait_for_step 600
kill -KILL "$(rank_process 1)"
expect_end 0
expect_same
expect_said "rank 1 on $(hostname): died"
grep -q "rank 1 .*: gone" "$run/logs/attempt-0001/postmortem.txt" || fail "the post-mortem does not tell who died"
expect_status 0 "$disttrain" status "$run"
expect_text "2 since" 1
expect_text "last failure  attempt 1: rank 1" 1

launch_run killed-mpirun
wait_for_step 600
kill -KILL "$(pgrep -f -- "mpirun .*$run" | head -1)"
expect_end 0
expect_same

# A rank that hangs, rank 0 which watches the others too.
for rank in 0 1; do
    launch_run "stopped-rank-$rank" --collective-timeout 2s
    wait_for_step 600
    kill -STOP "$(rank_process $rank)"
    expect_end 0
    expect_same
done

# Told to stop: with a checkpoint at whatever step it was, and code 75; then it goes on.
for signal in TERM INT USR1; do
    launch_run "told-$signal"
    wait_for_step 600
    kill -$signal $job
    expect_end 75
    expect_said "with a checkpoint"
done
launch_run told-TERM
expect_end 0
expect_same
# To a rank, to mpirun: one run, which each signal stops where the one before left it. (What mpirun makes of SIGTERM
# takes 15 s: Tests/Cluster.)
at=600
for signal in INT TERM USR1 mpirun; do
    launch_run told-others
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

# Told before ranks have come up: a step is made and saved all the same.
for moment in 0 0.3 0.6; do
    launch_run told-early
    until (( 16#$(awk '/^SigCgt/ { print $2 }' "/proc/$job/status") & 1 << (10 - 1) )); do sleep 0.01; done # it listens
    sleep $moment
    kill -USR1 $job
    expect_end 75
    expect_said "with a checkpoint"
done
launch_run told-early
expect_end 0
expect_same

# Told in the pause before a restart: the checkpoint is there, and nothing is started again.
launch_run told-between
wait_for_step 600
kill -KILL "$(rank_process 1)"
until grep -q "starting again" "$run.log"; do sleep 0.02; done
kill -TERM $job
expect_end 75
launch_run told-between
expect_end 0
expect_same

# In time: as often as it needs. The limit goes by what the machine does in it, and grows with every start: where
# starting alone takes longer than the limit, each start is worth one step.
limit=$((took < 4 ? 2 : took / 2))
count=0
while true; do
    launch_run in-time --time-limit $((limit + count))s
    status=0
    wait $job || status=$?
    count=$((count + 1))
    if [[ $status == 0 ]]; then break; fi
    [[ $status == 75 && $count -lt 40 ]] || { cat "$run.log" >&2; fail "exit code $status under a time limit"; }
done
[[ $count -gt 1 ]] || fail "a run of $steps steps was done within the time limit"
expect_same

# A second Ctrl-C ends at once.
launch_run impatient
wait_for_step 600
kill -STOP "$(rank_process 1)"
kill -INT $job
sleep 0.5
kill -INT $job
expect_end 130

# What would happen again is not tried again; what keeps happening, not for ever.
expect_status 2 "$disttrain" launch -n 2 -- "${train[@]}" --set data.path=/nowhere --output "$scratch/refused"
[[ $(ls "$scratch/refused/logs") == attempt-0001 ]] || fail "a usage error was tried again"

launch_run hopeless --max-restarts 2
while kill -0 $job 2>/dev/null; do
    pkill -KILL -f -- "disttrain train .*$run" || true
    sleep 0.2
done
expect_end 137
[[ $(ls "$run/logs" | wc -l) == 3 ]] || fail "$(ls "$run/logs" | wc -l) starts with --max-restarts 2, expected 3"
expect_said "2 restarts without a new checkpoint are enough"
