#!/usr/bin/env bash
# Tries the installation where nothing is: README's `make demo`, a dry run of every job script, and what the Apptainer
# definition does to an image, in a root of Debian that has python3, its venv package, make and git. Needs root,
# mmdebstrap and a network; 10 GB below FOLDER.
#
#   scripts/try_in_bare_root.sh FOLDER [SUITE]      the root is made in FOLDER/root, unless it is there; default: bookworm
#
# Where pip gets packages is taken over from the environment (PIP_*, and folders named in BARE_ROOT_BINDS).

set -euo pipefail

folder=${1:?usage: scripts/try_in_bare_root.sh FOLDER [SUITE]}
suite=${2:-bookworm}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
root=$folder/root
mkdir -p "$folder"
[[ -x $root/usr/bin/python3 ]] || mmdebstrap --quiet --variant=minbase \
    --include=python3,python3-venv,make,git,ca-certificates "$suite" "$root"

bound=()
leave() {
    local place
    for place in "${bound[@]}"; do umount --lazy "$place"; done
}
trap leave EXIT
bind() { # FOLDER
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    bound=("$root$1" "${bound[@]}")
}
for place in /proc /dev ${BARE_ROOT_BINDS:-}; do bind "$place"; done
cp /etc/resolv.conf "$root/etc/resolv.conf"

# A clone of what is committed, by a person with a home and nothing in it.
rm -rf "$root/home/galpaca"
mkdir -p "$root/home/galpaca"
git clone --quiet "$repository" "$root/home/galpaca/galpaca"

environment=(HOME=/home/galpaca PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8)
while IFS= read -r setting; do environment+=("$setting"); done < <(env | grep '^PIP_' || true)

# shellcheck disable=SC2016 # for the root's shell
chroot "$root" env -i "${environment[@]}" bash -euo pipefail -c '
    cd ~/galpaca
    make demo
    mkdir -p ~/scratch
    sed "s|^export GALPACA_RUNS=.*|export GALPACA_RUNS=$HOME/scratch|" slurm/site.env.example >slurm/site.env
    echo "optim.lr=1e-5" >rates.txt
    for script in slurm/*.sbatch; do
        words=()
        [[ $script != */sweep.sbatch ]] || words=(rates.txt)
        slurm/submit --dry-run "$script" "${words[@]}"
    done
    echo "== the demo and $(ls slurm/*.sbatch | wc -l) dry runs ended well"
'

# The sections of the definition, by their own words; what Apptainer adds is the image's format.
definition=$repository/slurm/galpaca.def
section() { # NAME
    sed -n "/^%$1\$/,/^%/p" "$definition" | sed '/^%/d'
}
section files | while read -r from to; do
    mkdir -p "$root$(dirname "$to")"
    cp -r --no-target-directory "$root/home/galpaca/galpaca/$from" "$root$to"
done
for name in post test; do
    extras=$(section arguments | sed -n 's/^ *EXTRAS=//p')
    section "$name" | sed "s/{{ TORCH_INDEX }}//; s/{{ EXTRAS }}/$extras/" |
        chroot "$root" env -i "${environment[@]}" bash -euo pipefail
done
echo "== the definition's %post and %test ended well"
