#!/bin/bash
# Evaluation: the same results on any number of ranks and after an interruption, and error cases.
source "$(dirname "$0")/lib.sh"

run=$scratch/run
expect_status 0 "$disttrain" train --config "$repository/configs/tiny.yaml" --output "$run" \
    --set train.steps=4 --set train.batch_size=8 --set train.sample_every=0 --set data.count=120 \
    --set optimizer.warmup_steps=0
result=$run/evaluation/step-00000004-pixel.json

# The result without the fields that depend on time.
numbers() { grep -v -e sampling -e '"features": [0-9]' -e measures "$1"; }

evaluate=("$disttrain" evaluate --model "$run" --reference synthetic-faces:120 --count 80 --steps 4 --precision fp32)
expect_status 0 "${evaluate[@]}"
expect_text "Fréchet distance of pixels (not FID)" 1
expect_text "about "
for name in fd_pixel kd_pixel precision recall density coverage mean_pairwise_distance duplicates memorised; do
    grep -q "\"$name\": " "$result" || fail "$result has no $name"
done
if grep -q '"[fk]id' "$result"; then fail "a distance of pixels is called fid or kid"; fi
for picture in nearest samples; do
    [[ -s $run/evaluation/step-00000004-pixel-$picture.png ]] || fail "missing picture $picture"
done
numbers "$result" >"$scratch/alone"

# On three ranks from scratch, then on two with the stored features of the reference.
rm -r "$run/evaluation"
expect_status 0 ranks 3 "${evaluate[@]}"
numbers "$result" | diff "$scratch/alone" - || fail "three ranks give other results"
expect_status 0 ranks 2 "${evaluate[@]}"
numbers "$result" | diff "$scratch/alone" - || fail "the stored features give other results"

# Killed after the first shard, the evaluation continues from it, on another number of ranks.
rm -r "$run/evaluation"
"${evaluate[@]}" --steps 6 --output "$scratch/whole" >/dev/null 2>&1
held "$run" open 'evaluation/samples-*/shard-00001.*' "${evaluate[@]}" --steps 6 >"$scratch/job" 2>&1 &
pid=$!
await_from $pid "the first shard" compgen -G "$run/evaluation/samples-*/shard-00000.safetensors"
kill -KILL $pid
wait $pid 2>/dev/null || true
expect_status 0 ranks 2 "${evaluate[@]}" --steps 6
expect_text "already computed"
diff <(numbers "$scratch/whole/step-00000004-pixel.json" | grep '": [0-9.-]*,*$') \
    <(numbers "$result" | grep '": [0-9.-]*,*$') || fail "an interrupted evaluation gives other results"
if compgen -G "$run/evaluation/samples-*" >/dev/null; then fail "the samples' features are left behind"; fi

# Stored features of other images under the same name are rejected.
kept=$(echo "$run"/evaluation/reference-pixel-*.safetensors)
sed -i 's/"images":"./"images":"z/' "$kept"
expect_status 3 "${evaluate[@]}"
expect_text "was made with different images"

# Images that already exist, without their grid.
expect_status 0 "$disttrain" sample --model "$run" --count 20 --steps 4 --precision fp32 --output "$scratch/pictures"
expect_status 0 ranks 2 "$disttrain" evaluate --samples "$scratch/pictures" --reference "$scratch/pictures" \
    --output "$scratch/same" --features pixel
grep -q '"count": 20' "$scratch/same/evaluation-pixel.json" || fail "expected 20 samples"
expect_text "20  samples close to a training image"
grep -q '"precision": 1' "$scratch/same/evaluation-pixel.json" || fail "the precision of a set against itself is not 1"

# Invalid combinations.
expect_status 2 "$disttrain" evaluate --reference synthetic-faces --count 20
expect_status 2 "${evaluate[@]}" --features inception
expect_text "docs/evaluation.md" 1
expect_status 2 "${evaluate[@]}" --features vae
cp "$repository/Tests/Fixtures/evaluation/stored.npz" "$scratch/other.npz"
expect_status 3 "$disttrain" evaluate --model "$run" --reference "$scratch/other.npz" --count 20
expect_text "24 dimensions" 1
expect_status 3 "$disttrain" evaluate --model "$run" --reference synthetic-faces --count 20 \
    --inception "$run/checkpoints/step-00000004/unet/diffusion_pytorch_model.safetensors"

# During training, on all ranks. A run that resumes at an evaluated step is not evaluated again, and the curve has it.
train=("$disttrain" train --config "$repository/configs/tiny.yaml" --set train.batch_size=8 --set train.sample_every=0
    --set data.count=60 --set optimizer.warmup_steps=0 --set evaluation.every=2 --set evaluation.count=40
    --set evaluation.steps=2 --set train.precision=fp32 --set train.checkpoint_every=2)
expect_status 0 ranks 2 "${train[@]}" --output "$scratch/judged" --set train.steps=3
for step in 2 3; do
    grep -q '"fd_pixel": ' "$scratch/judged/evaluation/step-0000000$step-pixel.json" || fail "step $step was not evaluated"
done
[[ $(grep -c '"kind":"evaluation"' "$scratch/judged/metrics.jsonl") == 2 ]] || fail "the curve lacks evaluations"
expect_status 0 "${train[@]}" --output "$scratch/judged" --set train.steps=4
[[ $(grep -c '"kind":"evaluation"' "$scratch/judged/metrics.jsonl") == 3 ]] || fail "expected one evaluation more"
# The command computes the same values for the checkpoint.
expect_status 0 ranks 2 "$disttrain" evaluate --model "$scratch/judged/checkpoints/step-00000002" --count 40 --steps 2 \
    --reference synthetic-faces:60 --precision fp32 --output "$scratch/command"
for name in fd_pixel kd_pixel recall density; do
    diff <(grep "\"$name\"" "$scratch/command/step-00000002-pixel.json") \
        <(grep "\"$name\"" "$scratch/judged/evaluation/step-00000002-pixel.json") || fail "the command gives other results"
done
expect_status 2 "${train[@]}" --output "$scratch/bad" --set evaluation.features=inception
expect_text "docs/evaluation.md"

# With a first stage, latents are compared. The reference is the set of original images, or their reconstructions once
# the originals are gone.
expect_status 0 "$disttrain" vae train --config "$repository/configs/vae_quickstart.yaml" --output "$scratch/vae" \
    --set data.size=32 --set data.count=64 --set "model.block_out_channels=[8,8,16]" --set model.norm_num_groups=4 \
    --set train.steps=2 --set train.batch_size=4 --set train.sample_every=0 --set optimizer.warmup_steps=0
mv "$scratch/pictures" "$scratch/originals"
rm "$scratch/originals/grid.png"
expect_status 0 "$disttrain" prepare "$scratch/originals" --size 32 --first-stage "$scratch/vae/model" \
    --output "$scratch/latents"
sed -e '/^    count:/d' -e "s#path: synthetic-faces.*#path: $scratch/latents#" -e '/^    size:/d' \
    -e 's/sample_size: 32/sample_size: 8/' -e 's/_channels: 3/_channels: 4/' "$repository/configs/tiny.yaml" \
    >"$scratch/latent.yaml"
expect_status 0 ranks 2 "$disttrain" train --config "$scratch/latent.yaml" --output "$scratch/latent" \
    --set "first_stage.path=$scratch/vae/model" --set train.steps=2 --set train.batch_size=4 \
    --set train.sample_every=0 --set optimizer.warmup_steps=0 --set evaluation.every=2 --set evaluation.count=16
grep -q '"fd_vae": ' "$scratch/latent/evaluation/step-00000002-vae.json" || fail "latents were not compared"
# A pixel-space model with the same features; results for other features are kept.
expect_status 2 "$disttrain" evaluate --model "$run" --reference "$scratch/originals" --count 20 --steps 2 --features vae
expect_text "--feature-stage"
expect_status 0 "$disttrain" evaluate --model "$run" --reference "$scratch/originals" --count 20 --steps 2 \
    --features vae --feature-stage "$scratch/vae/model"
grep -q '"fd_vae": ' "$run/evaluation/step-00000004-vae.json" || fail "pixels were not compared by latents"
[[ -s $result ]] || fail "the evaluation with pixel features was removed"
# A report on both models shows the cost of each, including that of the first stage.
expect_status 0 "$disttrain" report "$run" "$scratch/latent" --output "$scratch/both.html"
grep -q "its first stage" "$scratch/both.html" || fail "the first stage costs nothing"
rm -r "$scratch/originals"
expect_status 0 ranks 2 "$disttrain" evaluate --model "$scratch/latent" --reference "$scratch/latents" --count 20 \
    --steps 2
expect_text "reconstructions" 1
expect_text "(not FID)"
