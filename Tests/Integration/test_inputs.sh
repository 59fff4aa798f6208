#!/bin/bash
# Malicious and damaged inputs on several ranks: cases that need real processes and are not in test_bad_input.sh.
source "$(dirname "$0")/lib.sh"

images=$repository/Tests/Fixtures/images
prepare=("$disttrain" prepare --size 16 --output "$scratch/made")

# refuses CODE TEXT COMMAND...: alone and on 2 ranks, without a hang, with exactly one Error line.
refuses() {
    local code=$1 text=$2 count
    shift 2
    for count in 1 2; do
        rm -rf "$scratch/made"
        if [[ $count == 1 ]]; then
            expect_status "$code" within "$@"
        else
            expect_status "$code" within_ranks 2 "$@"
        fi
        expect_text "Error" 1
        expect_text "$text"
    done
}

# --- Special files ----------------------------------------------------------------------------------------

mkdir "$scratch/special"
cp "$images/rgb.png" "$images/rgb.jpg" "$scratch/special"
mkfifo "$scratch/special/a.png"
truncate -s 1T "$scratch/special/b.png"
ln -s c.png "$scratch/special/c.png"
ln -s /dev/zero "$scratch/special/d.png"
refuses 3 "a.png: is a pipe, expected a regular file; 4 such images in total" "${prepare[@]}" "$scratch/special"
expect_status 0 within_ranks 2 "${prepare[@]}" --skip-bad "$scratch/special"
expect_text "2 images of 16x16x3"
expect_text "4 skipped"
refuses 3 "special/a.png: is a pipe" "${prepare[@]}" "$scratch/special/a.png"
refuses 3 "/dev/zero: is a device" "${prepare[@]}" /dev/zero
mkfifo "$scratch/pipe.yaml"
refuses 2 "pipe.yaml: is a pipe" "$disttrain" train --config "$scratch/pipe.yaml" --output "$scratch/made"

# --- YAML -------------------------------------------------------------------------------------------------

{
    echo "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"
    for level in $(seq 12); do
        echo "a$level: &a$level [$(yes "*a$((level - 1))" | head -n 10 | paste -sd,)]"
    done
} >"$scratch/bomb.yaml"
refuses 2 "expands to more than 100000 values" \
    "$disttrain" train --config "$scratch/bomb.yaml" --output "$scratch/made"
# A downloaded run: the report skips what cannot be read.
mkdir "$scratch/downloaded"
cp "$scratch/bomb.yaml" "$scratch/downloaded/config.yaml"
expect_status 0 within "$disttrain" report "$scratch/downloaded" --output "$scratch/report"

# --- Archives ---------------------------------------------------------------------------------------------

mkdir "$scratch/set" "$scratch/disk"
for n in $(seq 40); do cp "$images/rgb.png" "$scratch/set/$n.png"; done
head -c 5M /dev/urandom >"$scratch/set/noise.bin"
tar -C "$scratch/set" -czf "$scratch/set.tar.gz" .
expect_status 0 "${prepare[@]}" --skip-bad "$scratch/set"
mv "$scratch/made" "$scratch/plain"
# The ranks of a host share one decompressed copy: three copies would not fit into this TMPDIR.
if mount -t tmpfs -o size=8m tmpfs "$scratch/disk" 2>/dev/null; then
    trap 'umount "$scratch/disk"; rm -rf "$scratch"' EXIT
    expect_status 0 ranks 3 env TMPDIR="$scratch/disk" "${prepare[@]}" --skip-bad "$scratch/set.tar.gz"
    [[ -z $(ls "$scratch/disk") ]] || fail "something is left in TMPDIR"
    diff -rq -x progress -x preview.png -x manifest.json "$scratch/plain" "$scratch/made" ||
        fail "an archive gives other shards than its folder"
    # The archive does not fit.
    head -c 9M /dev/urandom >>"$scratch/set/noise.bin"
    tar -C "$scratch/set" -czf "$scratch/larger.tar.gz" .
    refuses 74 "TMPDIR" env TMPDIR="$scratch/disk" "${prepare[@]}" --skip-bad "$scratch/larger.tar.gz"
    [[ -z $(ls "$scratch/disk") ]] || fail "something is left in a full TMPDIR"
else
    echo "SKIP: a small temporary folder, since mount is not permitted here"
fi
# A decompression bomb.
head -c 1200M /dev/zero | gzip -1 >"$scratch/zeros.tar.gz"
refuses 3 "over 200 times its" "${prepare[@]}" "$scratch/zeros.tar.gz"

# --- Shards -----------------------------------------------------------------------------------------------

pixels=$scratch/pixels
expect_status 0 "$disttrain" prepare synthetic-faces:40 --size 16 --output "$pixels"
grep -v '^    count: 2000$' "$repository/configs/tiny.yaml" >"$scratch/folder.yaml"
train=("$disttrain" train --config "$scratch/folder.yaml" --output "$scratch/made" --set "data.path=$pixels"
    --set train.batch_size=4 --set train.sample_every=0 --set optimizer.warmup_steps=1)
rm -rf "$scratch/made"
expect_status 0 within_ranks 2 "${train[@]}" --set train.steps=30
expect_text "shards of $pixels against their checksums: " 1

# One flipped bit.
python3 - "$pixels/shard-00002.safetensors" <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(-3, 2)
    byte = file.read(1)[0]
    file.seek(-3, 2)
    file.write(bytes([byte ^ 4]))
END
refuses 3 "shard-00002.safetensors: CRC-32C is " "${train[@]}" --set train.steps=200
expect_text "run \`disttrain prepare\` with the same options again"
expect_status 0 "$disttrain" prepare synthetic-faces:40 --size 16 --output "$pixels"
expect_text "4 reused"
rm -rf "$scratch/made"
expect_status 0 within "${train[@]}" --set train.steps=2

# --- Secrets ----------------------------------------------------------------------------------------------

secret=secret-$RANDOM$RANDOM
rm -rf "$scratch/made"
expect_status 0 env SLURM_JWT=$secret SLURM_SPANK_TOKEN=$secret SLURM_JOB_PARTITION=long WANDB_API_KEY=$secret \
    "$disttrain" train --config "$repository/configs/tiny.yaml" --output "$scratch/made" --set train.steps=4 \
    --set train.batch_size=4 --set train.log_every=1 --set optimizer.warmup_steps=1 --set logging.wandb=offline
if grep -rqF "$secret" "$scratch/made"; then fail "a secret of the environment is in $(grep -rlF "$secret" "$scratch/made")"; fi
grep -rqF '"job_partition"' "$scratch/made/wandb" || fail "the job's partition is not recorded"

# --- Evaluation -------------------------------------------------------------------------------------------

expect_status 0 "$disttrain" prepare synthetic-faces:40 --size 16 --output "$scratch/sixteen"
mkdir "$scratch/samples"
for n in $(seq 20); do cp "$images/rgb.png" "$scratch/samples/$n.png"; done
evaluate=("$disttrain" evaluate --samples "$scratch/samples" --reference synthetic-faces:40 --features pixel
    --output "$scratch/made")
expect_status 0 within "${evaluate[@]}"
cp "$scratch/plain/preview.png" "$scratch/samples/other.png"
refuses 3 "images of 2 sizes" "${evaluate[@]}"
expect_text "--size PIXELS"
rm -rf "$scratch/made"
expect_status 0 within_ranks 2 "${evaluate[@]}" --size 16
cp "$images/truncated.jpg" "$scratch/samples"
refuses 3 "truncated.jpg" "${evaluate[@]}" --size 16
rm -rf "$scratch/made"
expect_status 0 within_ranks 2 "${evaluate[@]}" --size 16 --skip-bad
expect_text "skipped 1 of 22 images: truncated.jpg" 1
grep -q '"count": 21' "$scratch/made/evaluation-pixel.json" || fail "expected 21 samples"
refuses 2 "--max-megapixels 0" "${evaluate[@]}" --max-megapixels 0
