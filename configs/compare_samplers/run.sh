#!/bin/bash
# Measures every sampler: the Fréchet distance of a model's samples from a reference, against the number of U-Net
# evaluations per sample. Prints a table in Markdown. If stopped, the same command resumes.
#
#     configs/compare_samplers/run.sh                                 the demo's model (scripts/demo.sh)
#     configs/compare_samplers/run.sh MODEL REFERENCE [FOLDER]        another one; FOLDER: default runs/compare_samplers
#     COUNT=1000 EVALUATIONS="5 10" SAMPLERS="ddim heun" configs/compare_samplers/run.sh
#
# COUNT (default 2000) samples are evaluated for each sampler and number. OPTIONS (default "--seed 0 --batch 64
# --spacing trailing") are further options of `evaluate`, such as --inception FILE. A sampler SAMPLER+karras has Karras
# noise levels. Heun's method takes 2n - 1 evaluations for n steps: of an even number, it uses one less.
set -euo pipefail

[[ ${1:-} != -* && $# != 1 ]] || { sed -n '2,/^set/p' "$0" | grep '^#' | cut -c3- >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
disttrain=${DISTTRAIN:-$here/../../.build/release/disttrain}
model=${1:-runs/quickstart}
reference=${2:-synthetic-faces:6000}
folder=${3:-runs/compare_samplers}
read -ra evaluations <<<"${EVALUATIONS:-5 10 20 50}"
read -ra samplers <<<"${SAMPLERS:-ddim ddpm dpmpp-2m dpmpp-2m+karras dpmpp-2m-sde dpmpp-3m unipc unipc+karras heun heun+karras euler euler+karras euler-a}"
read -ra options <<<"${OPTIONS:---seed 0 --batch 64 --spacing trailing}"

# distance FOLDER: the Fréchet distance in the result there, whatever features it is computed on.
distance() {
    sed -nE 's/^ *"(fid|fd_[a-z]+)": ([0-9.e+-]+),?$/\2/p' "$1"/evaluation-*.json "$1"/step-*.json 2>/dev/null | head -n 1
}

for sampler in "${samplers[@]}"; do
    for count in "${evaluations[@]}"; do
        output=$folder/$sampler-$count
        [[ -z $(distance "$output") ]] || continue
        steps=$count
        karras=()
        [[ $sampler != heun* ]] || steps=$(((count + 1) / 2))
        [[ $sampler != *+karras ]] || karras=(--karras)
        printf '\n== %s, %s evaluations\n' "$sampler" "$count"
        "$disttrain" launch -- evaluate --model "$model" --reference "$reference" --count "${COUNT:-2000}" \
            --sampler "${sampler%+karras}" "${karras[@]}" --steps "$steps" "${options[@]}" \
            --cache "$folder/reference" --output "$output"
    done
done

{
    printf '| sampler |'
    printf ' %s |' "${evaluations[@]}"
    printf '\n|---|'
    printf -- '---|%.0s' "${evaluations[@]}"
    printf '\n'
    for sampler in "${samplers[@]}"; do
        printf '| `%s` |' "$sampler"
        for count in "${evaluations[@]}"; do printf ' %.2f |' "$(distance "$folder/$sampler-$count")"; done
        printf '\n'
    done
} | tee "$folder/table.md"
