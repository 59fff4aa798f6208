#!/bin/bash
# `prepare` under real mpirun: any number of ranks writes the same bytes, and a job that was killed resumes.
source "$(dirname "$0")/lib.sh"

# same_folder A B: compares the samples and their description, without the records of progress.
same_folder() {
    diff -rq -x progress -x preview.png "$1" "$2" >/dev/null || fail "$1 and $2 differ"
}

source_images=(prepare synthetic-faces:150 --size 32 --precision fp32)

expect_status 0 "$disttrain" "${source_images[@]}" --output "$scratch/pixels1"
for count in 2 3 4; do
    expect_status 0 ranks "$count" "$disttrain" "${source_images[@]}" --output "$scratch/pixels$count"
    expect_text "150 images of 32x32x3" 1
    same_folder "$scratch/pixels$count" "$scratch/pixels1"
done

# The launcher passes the output of other commands than trainings on as it is, so it contains no heartbeats.
expect_status 0 "$disttrain" launch -n 2 -- "${source_images[@]}" --output "$scratch/launched"
expect_no_text "disttrain-heartbeat"
same_folder "$scratch/launched" "$scratch/pixels1"

# A first stage that was trained for two steps encodes badly, but deterministically.
expect_status 0 "$disttrain" vae train --config "$repository/configs/vae_quickstart.yaml" --output "$scratch/vae" \
    --set data.size=32 --set data.count=64 --set "model.block_out_channels=[8,8,16]" --set model.norm_num_groups=4 \
    --set train.steps=2 --set train.batch_size=4 --set train.sample_every=0 --set optimizer.warmup_steps=0
latents=("${source_images[@]}" --first-stage "$scratch/vae/model" --flip)
expect_status 0 "$disttrain" "${latents[@]}" --output "$scratch/latents1"
expect_status 0 ranks 3 "$disttrain" "${latents[@]}" --output "$scratch/latents3"
expect_text "150 latents of 8x8x4" 1
same_folder "$scratch/latents3" "$scratch/latents1"

# Killed as soon as the first shard exists, then resumed on another number of ranks.
(ranks 3 "$disttrain" "${latents[@]}" --output "$scratch/killed" >"$scratch/killed.log" 2>&1 || true) &
job=$!
await "a first shard" compgen -G "$scratch/killed/shard-*.safetensors"
pkill -9 -f -- "--output $scratch/killed" || true
wait "$job" || true
expect_status 0 ranks 2 "$disttrain" "${latents[@]}" --output "$scratch/killed"
same_folder "$scratch/killed" "$scratch/latents1"

# A shard that was damaged afterwards is detected and written again, and no other file changes.
shard=$(compgen -G "$scratch/killed/shard-*.safetensors" | head -n 1)
truncate -s -1 "$shard"
expect_status 0 "$disttrain" "${latents[@]}" --output "$scratch/killed"
same_folder "$scratch/killed" "$scratch/latents1"
