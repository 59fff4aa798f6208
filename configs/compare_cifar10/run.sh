#!/bin/bash
# Compares pixel space and latent space on CIFAR-10: trains both for the same number of operations, evaluates their
# checkpoints with the same metrics, and writes a report on both. If stopped, the same command resumes.
#
#     configs/compare_cifar10/run.sh data/cifar-10              about four hours on two cores
#     configs/compare_cifar10/run.sh data/cifar-10 FOLDER       everything in FOLDER, default runs/compare_cifar10
#     SHARE=0.25 configs/compare_cifar10/run.sh data/cifar-10   a quarter of the steps
#
# DATA: CIFAR-10's images, an archive of them, or its binary files. COUNT (default 2000) samples of STEPS (default 50)
# denoising steps are evaluated for each kept checkpoint; INCEPTION=FILE also computes FID (docs/evaluation.md).
set -euo pipefail

[[ $# -ge 1 && $1 != -* ]] || { sed -n '2,/^set/p' "$0" | grep '^#' | cut -c3- >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
disttrain=${DISTTRAIN:-$here/../../.build/release/disttrain}
data=$1
folder=${2:-runs/compare_cifar10}
share=${SHARE:-1}

say() { printf '\n== %s\n' "$*"; }
steps() { awk -v share="$share" '/^ *steps: / { print int($2 * share + 0.5); exit }' "$here/$1.yaml"; }
job() { "$disttrain" launch -- "$@"; }

say "first stage of the latent side"
job vae train --config "$here/vae.yaml" --set data.path="$data" --set train.steps="$(steps vae)" --output "$folder/vae"

job prepare "$data" --size 32 --first-stage "$folder/vae/model" --flip --output "$folder/latents"

say "latent space"
job train --config "$here/latent.yaml" --set data.path="$folder/latents" \
    --set first_stage.path="$folder/vae/model" --set train.steps="$(steps latent)" --output "$folder/latent"

say "pixel space"
job train --config "$here/pixel.yaml" --set data.path="$data" --set train.steps="$(steps pixel)" --output "$folder/pixel"

# evaluate_checkpoints SIDE: evaluates all checkpoints of a side, with the same features for both sides.
evaluate_checkpoints() {
    local checkpoint samples
    for checkpoint in "$folder/$1"/checkpoints/step-*; do
        say "evaluating $checkpoint"
        samples=$folder/samples/$1-$(basename "$checkpoint")
        [[ -e $samples/grid.png ]] ||
            job sample --model "$checkpoint" --count "${COUNT:-2000}" --steps "${STEPS:-50}" --batch 64 --output "$samples"
        evaluate() {
            job evaluate --model "$checkpoint" --samples "$samples" --reference "$data" --cache "$folder/reference" "$@"
        }
        evaluate --features vae --feature-stage "$folder/vae/model"
        evaluate --features pixel
        [[ -z ${INCEPTION:-} ]] || evaluate --features inception --inception "$INCEPTION"
    done
}
evaluate_checkpoints latent
evaluate_checkpoints pixel

say "report"
"$disttrain" report "$folder/latent" "$folder/pixel" --pictures --output "$folder/report.html"
