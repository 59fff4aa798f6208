#!/bin/bash
# WebP and grayscale images: from files to trained models, samples and evaluations, in pixel space and with a first stage.
source "$(dirname "$0")/lib.sh"

images=$repository/Tests/Fixtures/images

# ---- WebP -----------------------------------------------------------------------------------------------------------

mkdir -p "$scratch/webp"
cp "$images"/{lossless,lossless_alpha,lossy,lossy_alpha,exif6}.webp "$images/rgb.png" "$scratch/webp"
expect_status 0 ranks 2 "$disttrain" prepare "$scratch/webp" --size 16 --output "$scratch/prepared_webp"
expect_text "6 images of 16x16x3"
tar -C "$scratch" -cf "$scratch/webp.tar" webp
expect_status 0 "$disttrain" prepare "$scratch/webp.tar" --size 16 --output "$scratch/prepared_tar"
cmp "$scratch/prepared_webp/shard-00000.safetensors" "$scratch/prepared_tar/shard-00000.safetensors" ||
    fail "an archive of the files gives other samples"

# refused NAME TEXT: a folder with this file among images is refused with one line that names it; --skip-bad skips it.
refused() {
    rm -rf "$scratch/one" "$scratch/made"
    mkdir "$scratch/one"
    cp "$images/rgb.png" "$scratch/one/good.png"
    cp "$1" "$scratch/one/bad.webp"
    expect_status 3 within_ranks 2 "$disttrain" prepare "$scratch/one" --size 16 --output "$scratch/made"
    expect_text "Error" 1
    expect_text "bad.webp: $2"
    [[ ! -e $scratch/made/manifest.json ]] || fail "a manifest was written"
    expect_status 0 "$disttrain" prepare "$scratch/one" --size 16 --skip-bad --output "$scratch/made"
    expect_text "skipped: bad.webp: $2"
}
refused "$images/animated.webp" "an animated WebP; expected a still image; extract a frame: webpmux -get frame 1"
refused "$images/bomb.webp" "16383x16383 pixels; expected at most 134 megapixels"
head -c 150 "$images/lossy.webp" >"$scratch/short.webp"
refused "$scratch/short.webp" "damaged or truncated image"
printf 'RIFF\x04\x00\x00\x00WAVE' >"$scratch/sound.webp"
refused "$scratch/sound.webp" "not an image: a RIFF file that is not a WebP; expected PNG, JPEG or WebP"
cp "$images/notanimage.jpg" "$scratch/one/drawing.gif"
expect_status 3 "$disttrain" prepare "$scratch/one" --size 16 --output "$scratch/other"
expect_text "mogrify -format png *.gif"

# ---- Grayscale ------------------------------------------------------------------------------------------------------

# Digits of seven segments, 16 x 16: gray PNG files, of which every fourth is RGB with colors.
python3 - "$scratch/digits" <<'END'
import pathlib, random, struct, sys, zlib
folder = pathlib.Path(sys.argv[1])
segments = ["abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg"]
boxes = {"a": (4, 1, 11, 3), "b": (10, 2, 12, 8), "c": (10, 8, 12, 14), "d": (4, 13, 11, 15), "e": (3, 8, 5, 14),
         "f": (3, 2, 5, 8), "g": (4, 7, 11, 9)}
def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
draw = random.Random(1)
for index in range(64):
    digit, level, shift = index % 10, draw.randrange(150, 256), draw.randrange(-2, 3)
    color = index % 4 == 3
    rows = []
    for y in range(16):
        row = bytearray([0])
        for x in range(16):
            lit = any(x0 <= x - shift < x1 and y0 <= y < y1 for x0, y0, x1, y1 in (boxes[s] for s in segments[digit]))
            row += bytes([level, level // 2, 10] if color else [level]) if lit else bytes(3 if color else 1)
        rows.append(bytes(row))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2 if color else 0, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    place = folder / str(digit)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{index:03}.png").write_bytes(data)
END
digits=$scratch/digits

expect_status 0 ranks 2 "$disttrain" prepare "$digits" --size 16 --channels 1 --output "$scratch/gray"
expect_text "64 images of 16x16x1"
expect_status 0 "$disttrain" prepare "$digits" --size 16 --output "$scratch/rgb"
if grep -q '"channels": 3,*$' "$scratch"/rgb/progress/*; then fail "the record of three channels has a new key"; fi
expect_status 0 "$disttrain" prepare "$digits" --size 16 --channels 1 --output "$scratch/gray"
expect_text "(8 reused)"
expect_status 3 "$disttrain" prepare "$digits" --size 16 --output "$scratch/gray"
expect_text "--channels was 1, now 3"
expect_status 2 "$disttrain" prepare "$digits" --size 16 --channels 2 --output "$scratch/two"
expect_text "--channels 2: expected 3, or 1 for grayscale"

# png_is_gray FILE...: the color type in the header is 0.
png_is_gray() {
    local file
    for file in "$@"; do
        [[ $(od -An -tu1 -j25 -N1 "$file" | tr -d ' ') == 0 ]] || fail "$file is not a grayscale PNG"
    done
}
png_is_gray "$scratch/gray/preview.png"

unet() { # IN_CHANNELS SAMPLE_SIZE
    cat <<END
model:
  sample_size: $2
  in_channels: $1
  out_channels: $1
  block_out_channels: [16, 32]
  down_block_types: [DownBlock2D, DownBlock2D]
  up_block_types: [UpBlock2D, UpBlock2D]
  layers_per_block: 1
  norm_num_groups: 8
train:
  steps: 6
  batch_size: 8
  precision: fp32
  log_every: 1
  sample_every: 3
  checkpoint_every: 3
sampling:
  count: 4
  steps: 4
logging: {tensorboard: true, wandb: offline}
END
}
{ printf 'name: gray\ndata: {path: %s, flip: true}\n' "$scratch/gray"; unet 1 16; } >"$scratch/gray.yaml"
run=$scratch/run
expect_status 0 ranks 2 "$disttrain" train --config "$scratch/gray.yaml" --output "$run" \
    --set evaluation.every=6 --set evaluation.count=16 --set evaluation.features=pixel
expect_text "64 samples 16×16×1"
png_is_gray "$run"/samples/*.png "$run"/wandb/*/files/media/images/*.png
[[ -e $run/evaluation/step-00000006-pixel.json ]] || fail "no evaluation during training"

# Resumed from the checkpoint of step 3, the run gives the same weights, bit for bit.
cp -r "$run" "$scratch/again"
rm -r "$scratch/again/checkpoints/step-00000006" "$scratch/again/model"
expect_status 0 ranks 2 "$disttrain" train --config "$scratch/gray.yaml" --output "$scratch/again" \
    --set evaluation.every=6 --set evaluation.count=16 --set evaluation.features=pixel
expect_text "step-00000003, step 3" 1
weights=model/unet/diffusion_pytorch_model.safetensors
cmp "$run/$weights" "$scratch/again/$weights" || fail "the resumed run has other weights"
# So does a run that reads the images directly.
expect_status 0 ranks 2 "$disttrain" train --config "$scratch/gray.yaml" --output "$scratch/direct" \
    --set "data.path=$digits" --set data.channels=1 --set data.size=16
cmp "$run/$weights" "$scratch/direct/$weights" || fail "images that are read directly give other weights"

expect_status 0 ranks 2 "$disttrain" sample --model "$run" --count 8 --steps 4 --precision fp32 --seed 3 \
    --format png --format grid --format npz --output "$scratch/drawn"
[[ -s $scratch/drawn/samples_8x16x16x1.npz ]] || fail "no samples of one channel"
png_is_gray "$scratch"/drawn/*.png
evaluate=("$disttrain" evaluate --steps 4 --precision fp32 --features pixel)
expect_status 0 ranks 2 "${evaluate[@]}" --model "$run" --reference "$digits" --count 16 --output "$scratch/from_model"
expect_status 0 "$disttrain" sample --model "$run" --count 16 --steps 4 --precision fp32 --format png --format grid \
    --output "$scratch/sixteen"
expect_status 0 "${evaluate[@]}" --samples "$scratch/sixteen" --channels 1 --reference "$digits" --output "$scratch/from_files"
grep -q '"fd_pixel": ' "$scratch"/from_model/*.json || fail "no distance of pixels"
# The distances do not depend on whether the samples passed through files.
diff <(grep '_pixel"' "$scratch"/from_model/*.json | sed 's/.*"\([a-z]*_pixel\)/\1/') \
    <(grep '_pixel"' "$scratch"/from_files/*.json | sed 's/.*"\([a-z]*_pixel\)/\1/') || fail "files give other distances"
expect_status 0 "$disttrain" sample --model "$run" --invert "$digits" --count 2 --steps 4 --output "$scratch/inverted"
png_is_gray "$scratch/inverted/inversion.png"
expect_status 0 "$disttrain" report "$run" --output "$scratch/report"

# ---- A first stage of one channel -----------------------------------------------------------------------------------

cat >"$scratch/vae.yaml" <<END
name: vae
data: {path: $digits, size: 16, channels: 1}
model:
  in_channels: 1
  out_channels: 1
  latent_channels: 2
  block_out_channels: [8, 16]
  down_block_types: [DownEncoderBlock2D, DownEncoderBlock2D]
  up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D]
  layers_per_block: 1
  norm_num_groups: 4
train: {steps: 4, batch_size: 8, precision: fp32, sample_every: 4, checkpoint_every: 4}
END
expect_status 0 ranks 2 "$disttrain" vae train --config "$scratch/vae.yaml" --output "$scratch/vae"
png_is_gray "$scratch"/vae/samples/*.png
stage=$scratch/vae/model
expect_status 0 ranks 2 "$disttrain" prepare "$digits" --size 16 --first-stage "$stage" --flip --output "$scratch/latents"
expect_text "64 latents of 8x8x2"
png_is_gray "$scratch/latents/preview.png"
grep -q '"channels": 1' "$scratch"/latents/progress/shard-00000.json || fail "the record does not have its channels"
expect_status 0 "$disttrain" vae encode --model "$stage" --size 16 "$digits/0/000.png" "$digits/3/003.png" \
    --output "$scratch/two.safetensors"
expect_status 0 "$disttrain" vae decode --model "$stage" "$scratch/two.safetensors" --output "$scratch/decoded"
png_is_gray "$scratch"/decoded/*.png

{ printf 'name: latent\ndata: {path: %s, flip: true}\nfirst_stage: {path: %s}\n' "$scratch/latents" "$stage"; unet 2 8; } \
    >"$scratch/latent.yaml"
expect_status 0 ranks 2 "$disttrain" train --config "$scratch/latent.yaml" --output "$scratch/latent_run"
png_is_gray "$scratch"/latent_run/samples/*.png
expect_status 0 ranks 2 "$disttrain" sample --model "$scratch/latent_run" --count 4 --steps 4 --format png --format grid --format npz \
    --output "$scratch/latent_samples"
png_is_gray "$scratch"/latent_samples/*.png
[[ -s $scratch/latent_samples/samples_4x16x16x1.npz ]] || fail "no npz of one channel"
for features in vae pixel; do
    expect_status 0 ranks 2 "$disttrain" evaluate --model "$scratch/latent_run" --reference "$scratch/latents" --count 16 \
        --steps 4 --features $features
done

# ---- Mismatches: one line each --------------------------------------------------------------------------------------

mismatch() { # CODE TEXT COMMAND...
    local code=$1 text=$2
    shift 2
    rm -rf "$scratch/never"
    expect_status "$code" within_ranks 2 "$@"
    expect_text "Error" 1
    expect_text "$text"
}
train=("$disttrain" train --config "$scratch/gray.yaml" --output "$scratch/never")
mismatch 2 "have 3 channels; set model.in_channels and out_channels to 3, or prepare the images with --channels 1" \
    "${train[@]}" --set "data.path=$scratch/rgb"
mismatch 2 "set model.in_channels and out_channels to 3, or data.channels to 1" \
    "${train[@]}" --set "data.path=$digits" --set data.size=16
mismatch 2 "data.channels: found 3, expected model.in_channels (1)" "${train[@]}" --set data.channels=3
mismatch 2 "data.channels: found 2, expected 3, or 1 for grayscale" "${train[@]}" --set data.channels=2
mismatch 3 "was prepared from images of 3 channels, but data.channels is 1" \
    "${train[@]}" --set "data.path=$scratch/rgb" --set data.channels=1
mismatch 3 "takes images of 1 channel; omit --channels" \
    "$disttrain" prepare "$digits" --size 16 --channels 3 --first-stage "$stage" --output "$scratch/never"
mismatch 3 "was prepared with 1 channel, but the samples have 3" "$disttrain" evaluate --samples "$digits" --channels 3 \
    --reference "$scratch/gray" --output "$scratch/never"
mismatch 2 "--channels: requires --samples" "$disttrain" evaluate --model "$run" --channels 1 --reference "$digits"
mismatch 3 "its latents have 2 channels, but the U-Net of $run works on 1" \
    "$disttrain" sample --model "$run" --first-stage "$stage" --count 2 --steps 2 --output "$scratch/never"
