#!/bin/bash
# Class-conditional models: from images in class folders to guided samples and an evaluation by class.
source "$(dirname "$0")/lib.sh"

# 48 images of 16 x 16 in three class folders, each class with its own colour.
python3 - "$scratch/photos" <<'EOF'
import os, random, struct, sys, zlib
def png(path, color):
    noise = random.Random(path)
    rows = b"".join(b"\0" + bytes(max(0, min(255, c + noise.randint(-30, 30))) for _ in range(16) for c in color)
                    for _ in range(16))
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
                   + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
for name, color in dict(cherry=(200, 30, 60), leaf=(40, 180, 50), sky=(90, 140, 220)).items():
    os.makedirs(f"{sys.argv[1]}/{name}")
    for number in range(16):
        png(f"{sys.argv[1]}/{name}/{number:02}.png", color)
EOF
expect_status 0 "$disttrain" prepare "$scratch/photos" --size 16 --output "$scratch/data"
expect_text "classes: 3" 1

sed -e '/^    count:/d' -e "s#path: synthetic-faces.*#path: $scratch/data#" -e '/^    size:/d' \
    -e 's/sample_size: 32/sample_size: 16/' "$repository/configs/tiny.yaml" >"$scratch/classes.yaml"
train=("$disttrain" train --config "$scratch/classes.yaml" --set model.num_class_embeds=4
    --set diffusion.label_dropout=0.2 --set sampling.guidance_scale=1.5 --set train.batch_size=6
    --set train.sample_every=0 --set train.checkpoint_every=2 --set optimizer.warmup_steps=0 --set train.precision=fp32)

# The losses do not depend on the number of ranks, and a resumed run has the losses of an uninterrupted one.
losses() {
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    if row.get("kind") == "step": print(row["step"], row["loss"])' "$1/metrics.jsonl"
}
same_losses() {
    paste <(losses "$scratch/whole") <(losses "$1") |
        awk '{ if ($1 != $3 || ($2 - $4) ^ 2 > 1e-8 * $2 ^ 2) exit 1; n++ } END { exit n < 2 }' ||
        fail "$1: other losses: $(losses "$scratch/whole") and $(losses "$1")"
}
expect_status 0 "${train[@]}" --set train.steps=4 --set train.log_every=1 --output "$scratch/whole"
expect_status 0 ranks 2 "${train[@]}" --set train.steps=4 --set train.log_every=1 --output "$scratch/two"
same_losses "$scratch/two"
expect_status 0 "${train[@]}" --set train.steps=2 --set train.log_every=1 --output "$scratch/resumed"
expect_status 0 ranks 2 "${train[@]}" --set train.steps=4 --set train.log_every=1 --output "$scratch/resumed"
same_losses "$scratch/resumed"

# The exported model knows its classes, and sample i is the same image on any number of ranks.
grep -q '"_label_names": \["cherry", "leaf", "sky"\]' "$scratch/whole/model/unet/config.json" ||
    fail "the model's config.json does not name its classes"
sample=("$disttrain" sample --steps 3 --precision fp32)
expect_status 0 "${sample[@]}" --model "$scratch/whole" --count 7 --guidance-scale 2 --output "$scratch/a" \
    --dump-latents "$scratch/a.safetensors"
expect_status 0 ranks 3 "${sample[@]}" --model "$scratch/whole/model" --count 7 --guidance-scale 2 \
    --output "$scratch/b" --dump-latents "$scratch/b.safetensors"
cmp "$scratch/a.safetensors" "$scratch/b.safetensors" || fail "samples depend on the ranks"
expect_status 0 "${sample[@]}" --model "$scratch/whole" --class sky,0 --count 4 --output "$scratch/some"
grep -qa "cherry" "$scratch/some/sample_00001.png" || fail "a sample does not record its class"
expect_status 0 "${sample[@]}" --model "$scratch/whole" --class leaf --interpolate 1:2 --output "$scratch/between"
expect_status 0 "$disttrain" report "$scratch/whole" --output "$scratch/report.html"

# Evaluation by class.
expect_status 0 ranks 2 "$disttrain" evaluate --model "$scratch/whole" --reference "$scratch/data" --count 48 \
    --steps 2 --batch 8
expect_text "kd_pixel by class: " 1
grep -q '"sky"' "$scratch"/whole/evaluation/step-*-pixel.json || fail "no result of a class"

# Errors: one line, nothing written.
refused() { # STATUS TEXT COMMAND...
    local status=$1 text=$2
    shift 2
    expect_status "$status" "$@" --output "$scratch/never"
    expect_text "$text" 1
    [[ ! -e $scratch/never ]] || fail "an output was created"
}
refused 2 "did you mean 'leaf'?" "${sample[@]}" --model "$scratch/whole" --class laef
refused 2 "specify one class" "${sample[@]}" --model "$scratch/whole" --interpolate 1:2
expect_status 0 "$disttrain" train --config "$scratch/classes.yaml" --set train.steps=1 --set train.batch_size=4 \
    --set train.sample_every=0 --set optimizer.warmup_steps=0 --output "$scratch/plain"
refused 2 "the model is unconditional" "${sample[@]}" --model "$scratch/plain" --class sky
refused 2 "the model is unconditional" "${sample[@]}" --model "$scratch/plain" --guidance-scale 2
expect_status 2 "${train[@]}" --set model.num_class_embeds=3 --output "$scratch/never"
expect_text "has 3 classes; expected 4 with diffusion.label_dropout" 1
expect_status 2 "${train[@]}" --set model.num_class_embeds=null --output "$scratch/never"
expect_text "diffusion.label_dropout: only applies to a class-conditional model" 1
expect_status 2 "${train[@]}" --set data.path=synthetic-faces --set data.size=16 --output "$scratch/never"
expect_text "have no labels" 1
