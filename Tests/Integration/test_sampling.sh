#!/bin/bash
# Sampling and first stages through files: written files can be read back and give the same results.
source "$(dirname "$0")/lib.sh"

expect_status 0 "$disttrain" vae train --config "$repository/configs/vae_quickstart.yaml" --output "$scratch/vae" \
    --set data.size=32 --set data.count=64 --set "model.block_out_channels=[8,8,16]" --set model.norm_num_groups=4 \
    --set train.steps=2 --set train.batch_size=4 --set train.sample_every=0 --set optimizer.warmup_steps=0
expect_status 0 "$disttrain" prepare synthetic-faces:20 --size 32 --first-stage "$scratch/vae/model" \
    --output "$scratch/latents"
sed -e '/^    count:/d' -e "s#path: synthetic-faces.*#path: $scratch/latents#" -e '/^    size:/d' \
    -e 's/sample_size: 32/sample_size: 8/' -e 's/_channels: 3/_channels: 4/' "$repository/configs/tiny.yaml" \
    >"$scratch/latent.yaml"
expect_status 0 "$disttrain" train --config "$scratch/latent.yaml" --output "$scratch/run" \
    --set "first_stage.path=$scratch/vae/model" --set train.steps=2 --set train.batch_size=4 \
    --set train.sample_every=0 --set optimizer.warmup_steps=0

# The final latents are the same on any number of ranks, and a run, its checkpoint and its pipeline give the same
# samples.
sample=("$disttrain" sample --count 5 --steps 3 --precision fp32)
expect_status 0 "${sample[@]}" --model "$scratch/run" --output "$scratch/a" --dump-latents "$scratch/a.safetensors"
for model in "$scratch/run/model" "$scratch/run/checkpoints/step-00000002"; do
    expect_status 0 ranks 3 "${sample[@]}" --model "$model" --output "$scratch/b" \
        --dump-latents "$scratch/b.safetensors"
    cmp "$scratch/a.safetensors" "$scratch/b.safetensors" || fail "$model gives other samples"
done
[[ $(find "$scratch/a" -name 'sample_*.png' | wc -l) == 5 ]] || fail "expected 5 samples"

# Other methods.
expect_status 0 "${sample[@]}" --model "$scratch/run" --method ddpm --output "$scratch/c"
expect_status 0 "${sample[@]}" --model "$scratch/run" --eta 1 --spacing trailing --output "$scratch/d"

# Encode images, and decode them to a file and to images.
pictures=("$scratch/a/sample_00000.png" "$scratch/a/sample_00001.png")
expect_status 0 "$disttrain" vae encode --model "$scratch/vae/model" --size 32 "${pictures[@]}" \
    --output "$scratch/encoded.safetensors"
expect_text "2 latents 4×8×8" 1
expect_status 0 ranks 2 "$disttrain" vae decode --model "$scratch/vae/model" "$scratch/encoded.safetensors" \
    --output "$scratch/decoded"
[[ -s $scratch/decoded/image_00001.png ]] || fail "no decoded picture"
expect_status 0 "$disttrain" vae decode --model "$scratch/vae/model" "$scratch/encoded.safetensors" \
    --output "$scratch/decoded.safetensors"
[[ $(stat -c %s "$scratch/decoded.safetensors") -gt $((2 * 3 * 32 * 32 * 4)) ]] || fail "decoded images are missing"
