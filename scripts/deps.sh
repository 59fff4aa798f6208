#!/bin/bash
# Checks the requirements of the build and the tests, and installs missing Debian packages. Returns quickly if nothing
# is missing. Exits with 1 if something is missing and cannot be installed.
set -uo pipefail

missing=()  # packages
reasons=()  # what each is for, for the message

need_command() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || { missing+=("$2"); reasons+=("$2 (the command $1)"); }
}

need_module() { # PKG-CONFIG-NAME PACKAGE
    pkg-config --exists "$1" 2>/dev/null || { missing+=("$2"); reasons+=("$2 (the library $1)"); }
}

need_header() { # HEADER PACKAGE
    local folder
    for folder in /usr/include "/usr/include/$(uname -m)-linux-gnu" /usr/local/include; do
        [[ -e $folder/$1 ]] && return
    done
    missing+=("$2")
    reasons+=("$2 (the header $1)")
}

check() {
    missing=()
    reasons=()
    need_command g++ g++
    need_command make make
    need_command git git
    need_command pkg-config pkg-config
    need_command mpirun openmpi-bin
    need_command timeout coreutils
    need_command awk mawk
    need_command python3 python3  # drives Tests/Faults
    need_module ompi-c libopenmpi-dev
    need_module openblas libopenblas-dev
    need_module libpng libpng-dev
    need_module libjpeg libjpeg-dev
    need_module libwebp libwebp-dev
    need_module libarchive libarchive-dev
    need_module zlib zlib1g-dev
    need_module libcrypto libssl-dev
    need_header dnnl.h libdnnl-dev  # has no .pc file
}

give_up() {
    echo "deps: $1" >&2
    printf 'deps: missing: %s\n' "${reasons[@]}" >&2
    echo "deps: on Debian or Ubuntu: sudo apt-get install ${missing[*]}" >&2
    exit 1
}

# Swift is not a Debian package, so it is only reported.
check_swift() {
    local found major minor
    if ! command -v swift >/dev/null 2>&1; then
        echo "deps: no swift in PATH; DistTrain needs 6.2 or later: https://www.swift.org/install/linux/" >&2
        exit 1
    fi
    found=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9.]*\).*/\1/p' | head -n 1)
    IFS=. read -r major minor _ <<<"$found"
    if ((${major:-0} < 6 || (${major:-0} == 6 && ${minor:-0} < 2))); then
        echo "deps: swift ${found:-of unknown version} in PATH; DistTrain needs 6.2 or later:" \
            "https://www.swift.org/install/linux/" >&2
        exit 1
    fi
}

check_swift
check
if [[ ${#missing[@]} == 0 ]]; then exit 0; fi

command -v apt-get >/dev/null 2>&1 || give_up "this system has no apt-get; install the same libraries its own way"
as_root=()
if [[ $(id -u) != 0 ]]; then
    # Without a terminal, sudo must not ask for a password.
    if command -v sudo >/dev/null 2>&1 && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
        as_root=(sudo)
    else
        give_up "cannot install packages without root or sudo"
    fi
fi

echo "deps: installing ${missing[*]}"
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "${missing[@]}" </dev/null
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! install >"$log" 2>&1; then
    # Outdated or missing package lists are the usual cause.
    if ! { "${as_root[@]}" apt-get update </dev/null && install; } >>"$log" 2>&1; then
        tail -n 15 "$log" >&2
        give_up "apt-get could not install them (see above; is there a network?)"
    fi
fi
check
if [[ ${#missing[@]} != 0 ]]; then give_up "installed, and yet not found"; fi
echo "deps: all there"
