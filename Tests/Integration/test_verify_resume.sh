#!/bin/bash
# disttrain verify-resume: proves that a killed run resumes exactly, and leaves nothing behind.
source "$(dirname "$0")/lib.sh"

unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # launch sets them where they are needed.
cd "$scratch"
tiny=(--config "$repository/configs/tiny.yaml" --set train.batch_size=6 --set data.count=64)
verify=("$disttrain" verify-resume "${tiny[@]}")
# Open MPI stores the session files of running jobs here.
export TMPDIR=$scratch/tmp
mkdir "$TMPDIR"

# nothing_left: neither processes nor files of jobs remain.
nothing_left() {
    # The run's folder is an argument of every rank.
    await "the end of all processes of $1" gone "--output [^ ]*$1"
    [[ -z $(ls -A "$TMPDIR") ]] || fail "left in TMPDIR: $(ls -A "$TMPDIR")"
}

# The command removes its own folder after success. Two of a checkpoint's folders are power function averages.
expect_status 0 "${verify[@]}" --set "ema.sigma_rel=[0.05, 0.1]" --set ema.snapshot_every=2
expect_text "killed during step " 1
expect_text " tensors bit-identical" 12
expect_text "20 steps, the same in loss, lr, grad_norm; none missing, none repeated" 1
expect_text "20 steps, none missing, none repeated" 1
expect_text "relative difference" 2
expect_text "Passed: " 1
expect_no_text "DIFFERS"
[[ ! -e runs ]] || fail "left behind: $(ls -R runs)"
nothing_left verify-resume-tiny

# A folder named by the user is kept, with checkpoints that the tools can read. Resumes on one rank, fewer than before;
# the schedule of a long run is shortened.
expect_status 0 "${verify[@]}" --set optimizer.warmup_steps=50 --set train.steps=1000 --ranks 2 --resume-ranks 1 \
    --steps 8 --kill-at 4 --output "$scratch/kept"
expect_text "the newest checkpoint is of step 3" 1
expect_status 0 "$disttrain" checkpoint diff "$scratch/kept/undisturbed" "$scratch/kept/killed"
expect_text "144 of 144 tensors are bit-identical" 4
expect_status 0 "$disttrain" checkpoint list "$scratch/kept/loaded"
expect_text "complete" 1
expect_status 2 "${verify[@]}" --output "$scratch/kept"
expect_text "not empty, expected a new or empty folder" 1

# Errors are reported before anything runs.
expect_status 2 "${verify[@]}" --set train.no_such_key=1
expect_text "no_such_key: unknown key" 1
expect_status 2 "${verify[@]}" --ranks 7
expect_text "train.batch_size is 6, expected at least one sample for each of 7 ranks" 1
expect_status 2 "${verify[@]}" --steps 5
expect_text "--steps 5: expected 6 or more"
expect_status 2 "${verify[@]}" --steps 8 --kill-at 8
expect_text "--kill-at 8: expected 3 to 7"
expect_status 2 env OMPI_COMM_WORLD_SIZE=2 "${verify[@]}"
expect_text "run it directly" 1
# An error that only occurs in a run is reported with the run's message and exit code, and its log is kept.
expect_status 3 "${verify[@]}" --set first_stage.path="$scratch/nothing" --output "$scratch/failed"
expect_text "undisturbed on 2 ranks ended with exit code 3, expected 0; last message 'Error" 1
grep -q "$scratch/nothing" "$scratch/failed/logs/undisturbed_on_2_ranks.txt" || fail "no log"
[[ ! -e runs ]] || fail "left behind: $(ls -R runs)"
nothing_left "$scratch/failed"

# Stopped by a signal: all processes end, and the command's own folder is removed.
for signal in INT TERM; do
    # Background jobs of bash ignore SIGINT.
    env --default-signal=INT "${verify[@]}" --steps 100000 >"$scratch/out" 2>&1 &
    job=$!
    until grep -qs '"step"' runs/verify-resume-tiny-*/undisturbed/metrics.jsonl; do
        kill -0 $job 2>/dev/null || fail "ended: $(cat "$scratch/out")"
        sleep 0.1
    done
    kill -$signal $job
    status=0
    wait $job || status=$?
    [[ $status == $((128 + $(kill -l $signal))) ]] || fail "exit code $status after SIG$signal"
    expect_text "Error: stopped by signal $(kill -l $signal)" 1
    [[ ! -e runs ]] || fail "left behind: $(ls -R runs)"
    nothing_left verify-resume-tiny
done
