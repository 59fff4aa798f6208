#!/bin/bash
# Installs the missing Debian packages of the test bed without starting the daemons that they contain, now or at the
# next boot: the test bed runs its own sshd, munged and slurmd in its own namespaces.
#
# deps.sh [--check] [hosts] [slurm]      both by default; --check only lists what is missing (exit status 1)
set -uo pipefail

check_only=no
parts=()
for word in "$@"; do
    case $word in
    --check) check_only=yes ;;
    hosts | slurm) parts+=("$word") ;;
    *)
        echo "deps: unknown word '$word'; usage: deps.sh [--check] [hosts] [slurm]" >&2
        exit 2
        ;;
    esac
done
if [[ ${#parts[@]} == 0 ]]; then parts=(hosts slurm); fi
PATH=$PATH:/usr/sbin:/sbin

missing=()
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

check() {
    missing=()
    for part in "${parts[@]}"; do
        case $part in
        hosts)
            need ip iproute2
            need tc iproute2
            need unshare util-linux
            need ssh openssh-client
            need sshd openssh-server
            need mpirun openmpi-bin
            need gcc gcc  # builds delay.c, where the kernel has no netem
            ;;
        slurm)
            need munged munge
            need slurmctld slurmctld
            need slurmd slurmd
            need sbatch slurm-client
            ;;
        esac
    done
}

check
if [[ ${#missing[@]} == 0 ]]; then exit 0; fi
command="apt-get install --no-install-recommends ${missing[*]}"
if [[ $check_only == yes ]]; then
    echo "deps: missing: ${missing[*]}; run cluster/testbed/deps.sh (or: $command)" >&2
    exit 1
fi
if [[ $(id -u) != 0 ]]; then
    echo "deps: cannot install ${missing[*]} without root; run: sudo $0" >&2
    exit 1
fi

# The scripts of Debian packages run this file before they start a daemon; exit status 101 forbids it.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
made_policy=no
restore() {
    rm -f "$log"
    if [[ $made_policy == yes ]]; then rm -f "$policy"; fi
}
trap restore EXIT
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made_policy=yes
fi

install() {
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $command --yes </dev/null
}
echo "deps: installing ${missing[*]}"
installed=("${missing[@]}")
if ! install >"$log" 2>&1 && ! { apt-get update && install; } >>"$log" 2>&1; then
    tail -n 15 "$log" >&2
    echo "deps: apt-get could not install ${missing[*]} (see above; is there a network?)" >&2
    exit 1
fi

# Keep the next boot from starting them either. Packages that were already installed are not changed.
for package in "${installed[@]}"; do
    case $package in
    openssh-server) unit=ssh ;;
    munge | slurmctld | slurmd) unit=$package ;;
    *) continue ;;
    esac
    if command -v systemctl >/dev/null 2>&1; then systemctl disable "$unit" >/dev/null 2>&1 || true; fi
done

check
if [[ ${#missing[@]} != 0 ]]; then
    echo "deps: installed, and yet not found: ${missing[*]}" >&2
    exit 1
fi
echo "deps: all there"
