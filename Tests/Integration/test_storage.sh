#!/bin/bash
# Storage faults end a command with exit code 74 and one line that names the file and the cause; the launcher restarts
# the job. Tests/Faults covers the faults that a run survives.
source "$(dirname "$0")/lib.sh"
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # launch sets them where they are needed.

run=$scratch/run
train=(train --config "$repository/Tests/Faults/faults.yaml")

# fails TEXT COMMAND...: the command exits with code 74 and prints exactly one Error line, which contains TEXT.
fails() {
    local text=$1
    shift
    expect_status 74 "$@"
    expect_text "Error" 1
    grep '^Error' "$scratch/out" | grep -qF -- "$text" || fail "'$text' is not on the line of the error: $(cat "$scratch/out")"
}

# --- No save succeeds -------------------------------------------------------------------------------------

full=(FAULT_ACTION=ENOSPC FAULT_CALL='*write*' FAULT_FILE='checkpoints/.partial-*' FAULT_TIMES=0)
fails "No space left on device" with_fault "$run" "${full[@]}" "$disttrain" "${train[@]}" --output "$run" \
    --set checkpoint.save_timeout=2
expect_text "step 6/6" 1
# The same command succeeds once there is space.
expect_status 0 "$disttrain" "${train[@]}" --output "$run"
[[ -d $run/checkpoints/step-00000006 ]] || fail "no checkpoint of the last step"

# --- The launcher restarts the job ------------------------------------------------------------------------

# Only the first attempt has the fault.
launched=$scratch/launched
expect_status 0 with_fault "$launched" "${full[@]}" FAULT_ONCE="$scratch/once" "$disttrain" launch -n 2 -- "${train[@]}" \
    --output "$launched" --set checkpoint.save_timeout=2
expect_text "restarting in" 1
[[ $(ls "$launched/logs" | wc -l) == 2 ]] || fail "$(ls "$launched/logs" | wc -l) starts, expected 2"
expect_status 0 "$disttrain" checkpoint diff "$launched" "$launched/checkpoints/step-00000006"
fails "No space left on device" with_fault "$scratch/hopeless" "${full[@]}" "$disttrain" launch -n 2 --max-restarts 0 -- \
    "${train[@]}" --output "$scratch/hopeless" --set checkpoint.save_timeout=2

# --- Files that cannot be read ----------------------------------------------------------------------------

unreadable=(FAULT_ACTION=EIO FAULT_CALL='@(open-read|read|pread*)' FAULT_TIMES=0)
sample=("$disttrain" sample --model "$run" --count 1 --steps 1 --output "$scratch/samples")
expect_status 0 "${sample[@]}"
fails "Input/output error" with_fault "$run" "${unreadable[@]}" FAULT_FILE='checkpoints/step-*/*.safetensors' "${sample[@]}"
prepare=("$disttrain" prepare synthetic-faces:32 --size 8 --output "$scratch/data")
fails "No space left on device" with_fault "$scratch/data" FAULT_ACTION=ENOSPC FAULT_CALL='*write*' FAULT_TIMES=0 "${prepare[@]}"
expect_status 0 "${prepare[@]}"
fails "Input/output error" with_fault "$scratch/data" "${unreadable[@]}" FAULT_FILE='manifest.json' \
    "$disttrain" "${train[@]}" --set data.path="$scratch/data" --set data.size=null --set data.count=null \
    --output "$scratch/unreadable"
