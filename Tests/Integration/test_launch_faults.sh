#!/bin/bash
# disttrain launch: numerical faults, a run that dies before its first checkpoint, and the launcher's own death; rejects
# unsafe host names and leaves no zombies.
source "$(dirname "$0")/lib.sh"
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # launch sets them where they are needed.

train=(train --config "$repository/Tests/Faults/faults.yaml" --set train.log_every=10)

# launch_run NAME [OPTION...] -- [TRAIN OPTION...]: starts a run in the background; $job is the launcher.
launch_run() {
    run=$scratch/$1
    shift
    local options=()
    while [[ $1 != -- ]]; do options+=("$1"); shift; done
    shift
    "$disttrain" launch -n 2 "${options[@]}" -- "${train[@]}" --output "$run" "$@" >>"$run.log" 2>&1 &
    job=$!
}

# wait_for COMMAND...: waits until the command succeeds.
wait_for() {
    if ! (await "$*" "$@"); then
        cat "$run.log" >&2
        exit 1
    fi
}

expect_end() {
    local status=0
    wait "$job" || status=$?
    [[ $status == "$1" ]] || { cat "$run.log" >&2; fail "exit code $status of $run, expected $1"; }
}

expect_said() { grep -qF -- "$1" "$run.log" || { cat "$run.log" >&2; fail "$run.log lacks '$1'"; }; }

# rank_process RANK: prints the process ID of the rank.
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

trained_to() { [[ $(sed -n 's/.*"kind":"step","step":\([0-9]*\),.*/\1/p' "$run/metrics.jsonl" 2>/dev/null | tail -1) -ge $1 ]] 2>/dev/null; }
all_gone() { ! pgrep -f -- "$run" >/dev/null; }

# A numerical fault is restarted once, since it may be a bit flip; a second one at the same step ends the run.
launch_run diverging -- --set train.steps=400 --set optimizer.learning_rate=1e30
expect_end 4
expect_said "twice at the same step"
[[ $(ls "$run/logs" | wc -l) == 2 ]] || fail "$(ls "$run/logs" | wc -l) starts, expected 2"
launch_run diverging-once --max-restarts 0 -- --set train.steps=400 --set optimizer.learning_rate=1e30
expect_end 4
[[ $(ls "$run/logs" | wc -l) == 1 ]] || fail "a numerical fault was restarted with --max-restarts 0"

# A run that resumes from another run's checkpoint and dies before its own first checkpoint resumes from there again.
launch_run first -- --set train.steps=40 --set train.checkpoint_every=40
expect_end 0
launch_run second -- --set train.steps=6000 --set train.checkpoint_every=5800 --resume "$scratch/first"
wait_for trained_to 60
kill -KILL "$(rank_process 1)"
wait_for grep -q "restarting in .* from $scratch/first (--resume)" "$run.log"
wait_for eval '[[ $(grep -c "Resuming from $scratch/first/checkpoints/step-00000040" "$run.log") == 2 ]]'
kill -TERM "$job"
expect_end 75
grep -q '"step":10,' "$run/metrics.jsonl" && fail "the run started from initial weights"

# The launcher is killed: its ranks save a checkpoint and exit, and the same command resumes from it.
launch_run orphaned -- --set train.steps=20000 --set train.checkpoint_every=19000
wait_for trained_to 20
kill -KILL "$job"
began=$SECONDS
wait_for all_gone
# On an idle machine it takes at most 30 s.
[[ $((SECONDS - began)) -le 120 ]] || fail "processes were left for $((SECONDS - began)) s"
wait "$job" || true
saved=$(ls "$run/checkpoints" | sed -n 's/^step-0*//p')
[[ -n $saved ]] || fail "the ranks saved no checkpoint after the launcher was killed"
launch_run orphaned -- --set train.steps=20000 --set train.checkpoint_every=19000
wait_for grep -q "Resuming from .*step-0*$saved," "$run.log"
# Killed while a rank is stopped, and restarted immediately.
wait_for trained_to $((saved + 20))
kill -STOP "$(rank_process 1)"
kill -KILL "$job"
began=$SECONDS
wait "$job" || true
launch_run orphaned -- --set train.steps=20000 --set train.checkpoint_every=19000
wait_for eval '[[ $(grep -c "Resuming from" "$run.log") == 2 ]]'
[[ $((SECONDS - began)) -le 160 ]] || fail "the repeated command started training only after $((SECONDS - began)) s"
kill -TERM "$job"
expect_end 75
# A job that is not a training has nothing to save and ends immediately.
run=$scratch/waiting
"$disttrain" launch -n 2 -- self-test communication --scenario forever >"$run.log" 2>&1 &
job=$!
wait_for eval '[[ $(grep -c "waits, process" "$run.log") == 2 ]]'
mapfile -t processes < <(sed -n 's/.*waits, process //p' "$run.log")
kill -KILL "$job"
wait_for eval '! kill -0 "${processes[@]}" 2>/dev/null'
wait "$job" || true

# Host names that ssh would interpret as options.
expect_status 2 "$disttrain" launch "--host=-oProxyCommand=touch $scratch/touched:1" -- "${train[@]}" --output "$scratch/x"
expect_text "found the host name" 1
[[ ! -e $scratch/touched ]] || fail "a command in a host name was executed"

# Probes without an answer are killed and leave no zombies.
printf '#!/bin/sh\nsleep 1000\n' >"$scratch/silent-ssh"
chmod +x "$scratch/silent-ssh"
run=$scratch/probing
"$disttrain" launch --host "$(hostname):1,elsewhere:1" --min-ranks 2 --ssh "$scratch/silent-ssh" -- "${train[@]}" \
    --output "$run" >"$run.log" 2>&1 &
job=$!
wait_for grep -q "elsewhere: no response" "$run.log"
sleep 0.2
ps --ppid "$job" -o stat= | grep -q Z && fail "the launcher has zombies"
kill -TERM "$job"
wait "$job" || true
