#!/bin/bash
# Installs the Debian packages of the test bed that are missing, without starting, now or at the next boot, any
# daemon that comes with them: the test bed runs its own sshd, munged and slurmd, inside its own namespaces.
#
# deps.sh [--check] [hosts] [slurm]      both, unless named; --check only tells what is missing (exit status 1)
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

# The scripts of Debian packages ask this file before they start anything; 101 means no.
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

# Not started now; nor should the next boot start them. What was there before is left alone.
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
