#!/bin/bash
# Samples by seed and as an archive, denoising strips, interpolation, inversion: the same on any number of ranks.
source "$(dirname "$0")/lib.sh"

expect_status 0 "$disttrain" train --config "$repository/configs/tiny.yaml" --output "$scratch/run" \
    --set train.steps=4 --set train.batch_size=4 --set train.sample_every=0 --set optimizer.warmup_steps=0
sample=("$disttrain" sample --model "$scratch/run" --steps 4 --precision fp32)

# same_pictures A B: the folders have the same files with the same pixels and text chunks.
same_pictures() {
    diff -rq "$1" "$2" >/dev/null || fail "$1 and $2 differ"
}

# One image per seed, the first of that seed, on any number of ranks.
expect_status 0 "${sample[@]}" --seeds 3-6,11 --output "$scratch/seeds1"
for count in 2 4; do
    expect_status 0 ranks "$count" "${sample[@]}" --seeds 3-6,11 --output "$scratch/seeds$count"
    same_pictures "$scratch/seeds1" "$scratch/seeds$count"
done
expect_status 0 "${sample[@]}" --seed 11 --count 1 --format png --output "$scratch/alone"
cmp "$scratch/alone/sample_00000.png" "$scratch/seeds1/seed_00011.png" || fail "seed 11 is not the first of its seed"
[[ ! -e $scratch/alone/grid.png ]] || fail "unexpected sample grid"
# The text chunks record how the image was sampled.
for text in 'seed.11' 'index.0' 'step.4' 'steps.4' 'eta.0.0' 'method.ddim' 'weights.ema-0.99'; do
    grep -qaE "$text" "$scratch/seeds1/seed_00011.png" || fail "no text '$text' in the PNG"
done

# The archive, read with Python's own ZIP reader.
expect_status 0 "${sample[@]}" --count 5 --output "$scratch/many" --format npz --format png
expect_status 0 ranks 3 "${sample[@]}" --count 5 --output "$scratch/many3" --format npz
archive=samples_5x32x32x3.npz
cmp "$scratch/many/$archive" "$scratch/many3/$archive" || fail "archives of 1 and 3 ranks differ"
python3 - "$scratch/many/$archive" <<'END' || fail "NumPy reads other values from the archive"
import ast, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.namelist() == ["arr_0.npy"] and archive.testzip() is None
    data = archive.read("arr_0.npy")
length = int.from_bytes(data[8:10], "little")
head = ast.literal_eval(data[10:10 + length].decode("latin1"))
assert data[:8] == b"\x93NUMPY\x01\x00" and head == {"descr": "|u1", "fortran_order": False, "shape": (5, 32, 32, 3)}
assert len(data) == 10 + length + 5 * 32 * 32 * 3 and len(set(data[10 + length:])) > 100
END

# Strips and interpolations.
expect_status 0 "${sample[@]}" --progress 3 --count 3 --output "$scratch/progress1"
expect_status 0 ranks 2 "${sample[@]}" --progress 3 --count 3 --output "$scratch/progress2"
same_pictures "$scratch/progress1" "$scratch/progress2"
expect_status 0 "${sample[@]}" --interpolate 3:11 --interpolate 1:2 --frames 4 --output "$scratch/between1"
expect_status 0 ranks 3 "${sample[@]}" --interpolate 3:11 --interpolate 1:2 --frames 4 --output "$scratch/between3"
same_pictures "$scratch/between1" "$scratch/between3"
[[ $(find "$scratch/between1" -name 'interpolation_*.png' | wc -l) == 8 ]] || fail "expected 8 pictures"

# Inversion: the resulting noise gives the same samples again.
expect_status 0 "${sample[@]}" --invert synthetic-faces:3 --output "$scratch/inverted1"
expect_text "Inverted 3 pictures in 4 steps and sampled them back: RMS error of pixels" 1
expect_status 0 ranks 2 "${sample[@]}" --invert synthetic-faces:3 --output "$scratch/inverted2"
same_pictures "$scratch/inverted1" "$scratch/inverted2"
grep -q '"latent_relative_error"' "$scratch/inverted1/inversion.json" || fail "no error in inversion.json"
expect_status 0 "${sample[@]}" --init-noise "$scratch/inverted1/noise.safetensors" --output "$scratch/again"
[[ -s $scratch/again/sample_00002.png ]] || fail "the noise gives no samples"
# Images from a folder, cropped and resized.
expect_status 0 "${sample[@]}" --invert "$scratch/seeds1" --count 2 --output "$scratch/inverted3"
expect_text "Inverted 2 pictures" 1

# Every sampler, on any number of ranks; noise that a sampler adds is keyed by sample and step.
for sampler in dpmpp-2m dpmpp-2m-sde dpmpp-3m unipc heun euler euler-a; do
    options=(--sampler "$sampler" --count 3 --batch 2)
    [[ $sampler == euler-a ]] || options+=(--karras)
    expect_status 0 "${sample[@]}" "${options[@]}" --format png --output "$scratch/$sampler-1"
    expect_status 0 ranks 2 "${sample[@]}" "${options[@]}" --format png --output "$scratch/$sampler-2"
    same_pictures "$scratch/$sampler-1" "$scratch/$sampler-2"
    grep -qaE "method.$sampler" "$scratch/$sampler-1/sample_00000.png" || fail "no text 'method.$sampler' in the PNG"
done
expect_status 0 "${sample[@]}" --sampler heun --progress 3 --count 2 --output "$scratch/progress3"
expect_status 0 "${sample[@]}" --sampler unipc --interpolate 3:11 --frames 3 --output "$scratch/between4"
# --method is its old name.
expect_status 0 "${sample[@]}" --method dpmpp-2m --karras --count 3 --batch 2 --format png --output "$scratch/method"
same_pictures "$scratch/dpmpp-2m-1" "$scratch/method"

# A run's own sampler: its class survives in the exported pipeline, and samples with it by default.
expect_status 0 "$disttrain" train --config "$repository/configs/tiny.yaml" --output "$scratch/solver" \
    --set train.steps=2 --set train.batch_size=4 --set train.sample_every=2 --set optimizer.warmup_steps=0 \
    --set sampling.sampler=dpmpp-3m --set sampling.karras=true --set sampling.steps=4 --set sampling.count=2 \
    --set diffusion.prediction=sample --set diffusion.schedule=sigmoid --set diffusion.min_snr_gamma=5 \
    --set diffusion.rescale_betas_zero_snr=true
expect_status 0 "$disttrain" checkpoint export --model "$scratch/solver" --output "$scratch/exported"
for model in "$scratch/solver/model" "$scratch/exported"; do
    grep -q '"solver_order": 3' "$model/scheduler/scheduler_config.json" || fail "$model has another scheduler"
    grep -q '"_class_name": "DPMSolverMultistepScheduler"' "$model/scheduler/scheduler_config.json" || fail "no class"
done
expect_status 0 "$disttrain" sample --model "$scratch/exported" --steps 4 --count 2 --format png --output "$scratch/own"
grep -qa 'method.dpmpp-3m' "$scratch/own/sample_00000.png" || fail "the model's class did not select the sampler"
expect_status 0 "$disttrain" sample --model "$scratch/exported" --steps 4 --count 2 --format png --sampler dpmpp-3m \
    --karras --output "$scratch/named"
same_pictures "$scratch/own" "$scratch/named"

# Images as the start: the same on any number of ranks, from a file or a folder.
given=("${sample[@]}" --from-image "$scratch/seeds1")
expect_status 0 "${given[@]}" --strength 0.5 --output "$scratch/variants1"
expect_status 0 ranks 3 "${given[@]}" --strength 0.5 --output "$scratch/variants3"
same_pictures "$scratch/variants1" "$scratch/variants3"
expect_status 0 "${sample[@]}" --from-image "$scratch/seeds1/seed_00003.png" --count 3 --sampler dpmpp-2m \
    --output "$scratch/variants4"
[[ $(find "$scratch/variants4" -name 'sample_*.png' | wc -l) == 3 ]] || fail "expected 3 variants of the image"
# Inpainting retains what the mask does not cover, pixel for pixel.
python3 - "$scratch/mask.png" "$scratch/black.png" "$scratch/small.png" <<'END'
import struct, sys, zlib
def png(path, side, white):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = b"".join(b"\0" + bytes(255 if x < white else 0 for x in range(side)) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
png(sys.argv[1], 32, 10)
png(sys.argv[2], 32, 0)
png(sys.argv[3], 16, 5)
END
photo=$scratch/seeds1/seed_00003.png
paint=("${sample[@]}" --from-image "$photo" --mask "$scratch/mask.png" --jump-length 1 --resampling 2)
expect_status 0 "${paint[@]}" --count 2 --format png --format npz --output "$scratch/painted1"
expect_status 0 ranks 2 "${paint[@]}" --count 2 --format png --format npz --output "$scratch/painted2"
same_pictures "$scratch/painted1" "$scratch/painted2"
grep -qa 'method.repaint' "$scratch/painted1/sample_00000.png" || fail "no text 'method.repaint' in the PNG"
expect_status 0 "${sample[@]}" --seeds 3 --format npz --output "$scratch/original"
python3 - "$scratch/painted1/samples_2x32x32x3.npz" "$scratch/original/samples_1x32x32x3.npz" <<'END' || fail "the mask"
import sys, zipfile
painted, original = (zipfile.ZipFile(path).read("arr_0.npy")[128:] for path in sys.argv[1:])
assert len(painted) == 2 * len(original) == 2 * 32 * 32 * 3
for sample in (painted[:3072], painted[3072:]):
    kept = [sample[i] == original[i] for i in range(3072) if i // 3 % 32 >= 10]
    assert all(kept), sum(kept)
    assert sample != original
END
expect_status 3 "${sample[@]}" --from-image "$photo" --mask "$scratch/black.png" --output "$scratch/wrong"
expect_status 3 "${sample[@]}" --from-image "$photo" --mask "$scratch/small.png" --output "$scratch/wrong"
expect_status 2 "${paint[@]}" --spacing linspace --output "$scratch/wrong"

# Invalid combinations are rejected with one line.
for wrong in "--seeds 5-3" "--seeds 1,1" "--seeds 0-2000000" "--seeds x" "--seeds 1-2 --count 2" "--interpolate 3" \
    "--interpolate 1:2 --eta 1" "--progress 2 --format npz" "--progress 2 --invert x" "--frames 1" "--format gif" \
    "--invert x --method ddpm" "--invert x --sampler euler" "--interpolate 1:2 --sampler euler-a" "--sampler dpm" \
    "--sampler euler-a --karras" "--sampler dpmpp-2m --eta 1" "--sampler dpmpp-2m --steps 1000" "--mask x" \
    "--strength 0.5" "--from-image x --strength 0" "--from-image x --strength 1.5" "--from-image x --resampling 5" \
    "--from-image x --invert y" "--from-image x --mask y --sampler unipc" "--from-image x --mask y --jump-length 0" \
    "--from-image $scratch/seeds1 --strength 0.1"; do
    # shellcheck disable=SC2086
    expect_status 2 "${sample[@]}" $wrong --output "$scratch/wrong"
done
expect_status 3 "${sample[@]}" --invert "$scratch/nothing" --output "$scratch/wrong"
expect_status 3 "${sample[@]}" --from-image "$scratch/nothing" --output "$scratch/wrong"
expect_status 3 "${sample[@]}" --from-image "$scratch/nothing.png" --output "$scratch/wrong"
expect_status 2 "${sample[@]}" --invert "$scratch/seeds1" --spacing linspace --output "$scratch/wrong"
