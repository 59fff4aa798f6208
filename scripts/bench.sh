#!/bin/bash
# Whole training steps of the 70 M U-Net on random data, in both precisions, on one rank and on two.
# OPENBLAS_CORETYPE is left out of the measurement: it can hold OpenBLAS below what the processor does.
set -euo pipefail
cd "$(dirname "$0")/.."
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE

step() {
    local ranks=$1
    shift
    printf '\n$ disttrain launch -n %s --threads 1 -- bench step --unet configs/unet_70m.json %s\n' "$ranks" "$*"
    .build/release/disttrain launch -n "$ranks" --threads 1 -- bench step --unet configs/unet_70m.json "$@"
}

for precision in bf16 fp32; do
    step 1 --precision "$precision" --batch 16
    (($(nproc) > 1)) && step 2 --precision "$precision" --batch 16
done
