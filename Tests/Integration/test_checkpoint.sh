#!/bin/bash
# The checkpoint tools, applied to a run's checkpoints.
source "$(dirname "$0")/lib.sh"

run=$scratch/run
checkpoints=$run/checkpoints
tool=("$disttrain" checkpoint)
train=("$disttrain" train --config "$repository/configs/tiny.yaml" --set train.batch_size=4
    --set train.sample_every=0 --set optimizer.warmup_steps=0 --set train.checkpoint_every=1 --set train.steps=4
    --set data.count=64)

# refused CODE TEXT COMMAND...: the command exits with CODE and prints exactly one Error line, which contains TEXT.
refused() {
    local code=$1 text=$2
    shift 2
    expect_status "$code" "$@"
    expect_text "Error" 1
    grep '^Error' "$scratch/out" | grep -qF -- "$text" || fail "'$text' is not in: $(cat "$scratch/out")"
}

# steps FOLDER: the steps of the folder's checkpoints, on one line.
steps() { (cd "$1" && echo step-* | sed 's/step-0*//g'); }

expect_status 0 ranks 2 "${train[@]}" --output "$run" --set checkpoint.keep_last=4
[[ $(steps "$checkpoints") == "1 2 3 4" ]] || fail "found $(steps "$checkpoints")"

# --- Inspecting -------------------------------------------------------------------------------------------

expect_status 0 "${tool[@]}" list "$run"
expect_text "complete" 4
expect_text "loss " 4
expect_status 0 "${tool[@]}" inspect "$run"
expect_text "$checkpoints/step-00000004" 1
expect_text "by 2 ranks" 1
expect_status 0 "${tool[@]}" inspect "$checkpoints/step-00000002" --json
cmp "$scratch/stdout" "$checkpoints/step-00000002/manifest.json" || fail "--json is not the manifest"
expect_status 0 "${tool[@]}" verify "$run"
expect_text "intact" 4

# --- Comparing --------------------------------------------------------------------------------------------

expect_status 0 "${tool[@]}" diff "$run" "$checkpoints/step-00000004"
expect_text "configuration: the same" 1
expect_no_text "relative"
expect_status 0 ranks 2 "${train[@]}" --output "$scratch/other" --set optimizer.learning_rate=5e-4
expect_status 0 "${tool[@]}" diff "$run" "$scratch/other"
expect_text "  optimizer.learning_rate: 0.001 → 0.0005" 1
expect_text "  checkpoint.keep_last: 4 → 3" 1
expect_text "unet: 0 of" 1
expect_text "that differ less"

# --- Resharding -------------------------------------------------------------------------------------------

# Reshards to 3 ranks and from there back to 2, which yields the original files. A run resumes from the copy exactly as
# from the original.
expect_status 0 "${tool[@]}" reshard "$checkpoints/step-00000002" --ranks 3 --output "$scratch/three/checkpoints"
expect_status 0 "${tool[@]}" verify "$scratch/three"
expect_text "step-00000002: intact" 1
expect_status 0 "${tool[@]}" diff "$scratch/three" "$checkpoints/step-00000002"
expect_text "ranks: 3 → 2" 1
expect_no_text "relative"
expect_status 0 "${tool[@]}" reshard "$scratch/three" --ranks 2 --output "$scratch/two"
diff -r "$scratch/two/step-00000002" "$checkpoints/step-00000002" || fail "resharding to 3 ranks and back changed the files"
for start in "$checkpoints/step-00000002" "$scratch/three"; do
    expect_status 0 ranks 2 "${train[@]}" --output "$scratch/on_$(basename "$start")" --resume "$start"
done
expect_status 0 "${tool[@]}" diff "$scratch/on_step-00000002" "$scratch/on_three"
expect_no_text "relative"
# Bitwise identical to the uninterrupted run, including the loss.
expect_status 0 "${tool[@]}" diff "$run" "$scratch/on_three"
expect_text "unet: 144 of 144 tensors are bit-identical" 1
expect_no_text "relative"
expect_no_text "metric:"
refused 3 "exists already; choose another --output" "${tool[@]}" reshard "$scratch/three" --ranks 2 \
    --output "$scratch/two"
refused 2 "--ranks 0: expected 1 to" "${tool[@]}" reshard "$run" --ranks 0 --output "$scratch/none"
[[ -e $scratch/none ]] && fail "something was written"

# --- Damage -----------------------------------------------------------------------------------------------

bad=$checkpoints/step-00000004
file=$(find "$bad/exp_avg" -name '*.safetensors' | sort | tail -1)
printf '\x55\xaa\x55\xaa' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") - 4)) conv=notrunc status=none
expect_status 0 "${tool[@]}" list "$run"
expect_text "complete" 4
expect_status 3 "${tool[@]}" verify "$run"
expect_text "step-00000004: exp_avg/$(basename "$file"): tensor '" 1
expect_text "Error: $run: 1 of 4 checkpoints are damaged" 1
refused 3 "has checksum" "${tool[@]}" reshard "$run" --ranks 1 --output "$scratch/none"
[[ $(ls -A "$scratch/none") == "" ]] || fail "a damaged checkpoint was copied"
refused 3 "has checksum" "${tool[@]}" diff "$run" "$scratch/other"
truncate -s -1 "$file"
expect_status 0 "${tool[@]}" list "$run"
expect_text "complete" 3
expect_text "damaged: exp_avg/" 1
refused 3 "truncated?" "${tool[@]}" inspect "$run"

# --- Pruning ----------------------------------------------------------------------------------------------

expect_status 0 "${tool[@]}" prune "$run" --keep-last 1 --keep-every 2 --dry-run
expect_text "would delete $checkpoints/step-00000001" 1
[[ $(steps "$checkpoints") == "1 2 3 4" ]] || fail "--dry-run left $(steps "$checkpoints")"
# A run that is in use is not pruned.
"${train[@]}" --output "$scratch/live" --set checkpoint.keep_last=9 --set train.steps=100000 >"$scratch/log" 2>&1 &
live=$!
until [[ -e $scratch/live/checkpoints/step-00000002 ]]; do
    kill -0 $live 2>/dev/null || fail "the live run ended: $(cat "$scratch/log")"
    sleep 0.1
done
refused 2 "$scratch/live: is in use by another run, process $live on " "${tool[@]}" prune "$scratch/live" --keep-last 1
refused 2 "; wait for its end or stop it" "${tool[@]}" reshard "$run/checkpoints/step-00000001" --ranks 1 \
    --output "$scratch/live/checkpoints"
expect_status 0 "${tool[@]}" prune "$scratch/live" --keep-last 1 --dry-run
kill -KILL $live
wait $live || true
expect_status 0 "${tool[@]}" prune "$scratch/live" --keep-last 1
expect_text "1 of " 1
# Step 4 is damaged, so 3 is the newest valid step.
expect_status 0 "${tool[@]}" prune "$run" --keep-last 1
expect_text "2 of 4 checkpoints kept" 1
[[ $(steps "$checkpoints") == "3 4" ]] || fail "found $(steps "$checkpoints")"
expect_status 0 ranks 2 "${train[@]}" --output "$run" --set checkpoint.keep_last=4
expect_text "skipping checkpoint step-00000004: $file: is " 1
[[ $(steps "$checkpoints") == "3 4" ]] || fail "found $(steps "$checkpoints")"
expect_status 0 "${tool[@]}" verify "$run"

# --- Errors -----------------------------------------------------------------------------------------------

for command in list inspect verify "diff $run" "prune --keep-last 1" "reshard --ranks 1 --output $scratch/none"; do
    # shellcheck disable=SC2086
    refused 3 "$scratch/gone: does not exist" "${tool[@]}" $command "$scratch/gone"
    # shellcheck disable=SC2086
    refused 3 "$repository/configs: holds no checkpoint" "${tool[@]}" $command "$repository/configs"
done
refused 2 "keep-last" "${tool[@]}" prune "$run"
refused 2 "--keep-every 0: expected 1 or more" "${tool[@]}" prune "$run" --keep-last 1 --keep-every 0
exit 0
