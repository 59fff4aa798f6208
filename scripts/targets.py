#!/usr/bin/env python3
"""Draws the targets of Package.swift and their dependencies: docs/images/targets.svg.

    scripts/targets.py            write the diagram
    scripts/targets.py --check    exit with 1 unless it is up to date and every imported target is declared

SwiftPM finds the modules of indirect dependencies too, but does not rebuild a target when one of them changes: the
program then crashes, because two targets disagree about the layout of a type. So each import must be declared.

A target stands above everything that it imports. Arrows that follow from others are left out.
"""

import functools
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/images/targets.svg"
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 128, 34, 22, 40, 12
WRAPPERS = {"MPIShim": "Open MPI", "CImageFiles": "libpng, libjpeg, libwebp", "CKernels": "OpenBLAS, oneDNN",
            "RecordProtocols": "swift-protobuf"}


def package():
    """The targets of Package.swift by name."""
    text = subprocess.run(["swift", "package", "dump-package"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {target["name"]: target for target in json.loads(text)["targets"]}


def dependencies(target):
    return [next(iter(item.values()))[0] for item in target["dependencies"]]


def folder(target):
    return ROOT / (target.get("path") or ("Tests/" if target["type"] == "test" else "Sources/") + target["name"])


def program(found):
    """The dependencies of each target that is part of the program, by name."""
    part = {
        name: dependencies(target) for name, target in found.items()
        if target["type"] in ("regular", "executable") and folder(target).is_relative_to(ROOT / "Sources")
    }
    return {name: [other for other in others if other in part] for name, others in part.items()}


def undeclared(found):
    """A line for each target that imports another one without declaring it."""
    for name, target in found.items():
        imports = set()
        for file in folder(target).rglob("*.swift"):
            imports |= set(re.findall(r"^(?:@testable )?import (?:(?:class|enum|func|struct) )?(\w+)", file.read_text(), re.M))
        missing = sorted(imports & set(found) - set(dependencies(target)))
        if missing:
            yield f"Package.swift: {name} imports {', '.join(missing)} without declaring it"


def main():
    found = package()
    uses = program(found)

    @functools.cache
    def below(name):
        """All that a target imports, directly or not."""
        return frozenset(uses[name]).union(*(below(other) for other in uses[name]))

    @functools.cache
    def level(name):
        return 1 + max((level(other) for other in uses[name]), default=-1)

    # A wrapper is placed one level below its first user.
    levels = {name: level(name) for name in uses}
    for name in uses:
        users = [levels[other] for other in uses if name in uses[other]]
        if not uses[name] and users:
            levels[name] = min(users) - 1
    arrows = [(name, other) for name in uses for other in uses[name]
              if not any(other in below(third) for third in uses[name])]

    rows = {}
    for name in uses:
        rows.setdefault(levels[name], []).append(name)
    widest = max(len(row) for row in rows.values())
    # Place each target near the targets that it imports.
    column = {}
    for number in sorted(rows):
        def wish(name):
            places = [column[other] for other in uses[name] if other in column]
            return sum(places) / len(places) if places else 0
        row = sorted(rows[number], key=wish)
        first = (widest - len(row)) / 2
        for place, name in enumerate(row):
            column[name] = first + place

    highest = max(rows)
    def corner(name):
        return (MARGIN + column[name] * (WIDTH + GAP_X), MARGIN + (highest - levels[name]) * (HEIGHT + GAP_Y))

    size = (2 * MARGIN + widest * (WIDTH + GAP_X) - GAP_X, 2 * MARGIN + (highest + 1) * (HEIGHT + GAP_Y) - GAP_Y)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:g} {size[1]:g}" font-family="sans-serif">',
             '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
             '<path d="M0 0 8 4 0 8z" fill="#667"/></marker></defs>',
             f'<rect width="{size[0]:g}" height="{size[1]:g}" fill="#fff"/>']
    for name, other in arrows:
        (x1, y1), (x2, y2) = corner(name), corner(other)
        lines.append(f'<path d="M{x1 + WIDTH / 2:g} {y1 + HEIGHT:g} C{x1 + WIDTH / 2:g} {y1 + HEIGHT + 20:g} '
                     f'{x2 + WIDTH / 2:g} {y2 - 20:g} {x2 + WIDTH / 2:g} {y2:g}" fill="none" stroke="#99a" '
                     'marker-end="url(#tip)"/>')
    for name in uses:
        x, y = corner(name)
        fill = "#f3ead8" if name in WRAPPERS else "#dce8f6"
        lines.append(f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="{fill}" stroke="#99a"/>')
        middle = x + WIDTH / 2
        if name in WRAPPERS:
            lines.append(f'<text x="{middle:g}" y="{y + 15:g}" text-anchor="middle" font-size="12">{name}</text>')
            lines.append(f'<text x="{middle:g}" y="{y + 28:g}" text-anchor="middle" font-size="10" fill="#556">'
                         f'{WRAPPERS[name]}</text>')
        else:
            lines.append(f'<text x="{middle:g}" y="{y + 22:g}" text-anchor="middle" font-size="13">{name}</text>')
    text = "\n".join(lines + ["</svg>"]) + "\n"
    if sys.argv[1:] == ["--check"]:
        faults = list(undeclared(found))
        if faults:
            print("\n".join(faults), file=sys.stderr)
            sys.exit(1)
        if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != text:
            print(f"{PICTURE.relative_to(ROOT)} is not up to date: run scripts/targets.py", file=sys.stderr)
            sys.exit(1)
        return
    PICTURE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
