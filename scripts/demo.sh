#!/bin/bash
# The whole pipeline on synthetic faces, with the commands that a user would type: a first stage, its latents, a U-Net
# on them, samples, an evaluation, a report. Nothing is downloaded. A demo that was stopped resumes.
set -euo pipefail
cd "$(dirname "$0")/.."

ranks=$(nproc)
((ranks > 2)) && ranks=2
started=$SECONDS

run() {
    printf '\n$ disttrain launch -n %s -- %s\n' "$ranks" "$*"
    .build/release/disttrain launch -n "$ranks" -- "$@"
}

run vae train --config configs/vae_quickstart.yaml
run prepare synthetic-faces:6000 --size 64 --first-stage runs/vae_quickstart/model --flip --output data/quickstart
run train --config configs/quickstart.yaml
run sample --model runs/quickstart --count 64 --steps 50 --seed 1 --output runs/quickstart/demo
run evaluate --model runs/quickstart --reference synthetic-faces:6000 --count 512 --batch 32

printf '\n$ disttrain report runs/quickstart --pictures\n'
.build/release/disttrain report runs/quickstart --pictures

minutes=$(((SECONDS - started + 30) / 60))
cat <<END

The demo took $minutes minutes. What to look at:
  runs/quickstart/report/report.html           the whole run on one page
  runs/quickstart/demo/grid.png                64 new faces, drawn by the model
  runs/quickstart/samples/                     the same noise at every 200 steps: faces appear
  runs/quickstart/loss.png                     the U-Net's loss curve
  runs/vae_quickstart/samples/                 images beside what the first stage makes of them
  runs/vae_quickstart/loss.png                 the first stage's loss curve
  runs/quickstart/model                        a pipeline that diffusers opens
END
