# shellcheck shell=bash
# What every job does before its own line; sourced by the scripts of this folder, never run by itself.
#
# Sets, for that line: `python`, the words that start it, and `GALPACA_RUNS`, and defines `with_experiment`. What is
# wrong is one line in the job's log and exit code 2, before anything is written.

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Word by word: `overrides` becomes what train.py is given.
with_experiment() { # DEFAULT [OVERRIDE...]; ~experiment takes none at all
    local default=$1 word
    shift
    overrides=("run.root=$GALPACA_RUNS")
    for word in "$@"; do
        [[ ! $word =~ ^[~+]*experiment(=|$) ]] || default=
        [[ $word == "~experiment" ]] || overrides+=("$word")
    done
    [[ -z $default ]] || overrides=("+experiment=$default" "${overrides[@]}")
}

read_site() {
    local site=${GALPACA_SITE:-$GALPACA_HOME/slurm/site.env} told
    [[ -r $site ]] || fail "there is no $site: cp slurm/site.env.example slurm/site.env, and fill it in"
    told=$(bash -n "$site" 2>&1) || fail "$site cannot be read as shell: ${told%%$'\n'*}"
    GALPACA_MODULES=() GALPACA_CONTAINER=() GALPACA_ENVIRONMENT=
    # What belongs to a cluster was rarely written for a strict shell.
    set +eu
    # shellcheck source=/dev/null
    source "$site"
    set -eu
    site_file=$site
}

check_runs() {
    local probe
    [[ -n ${GALPACA_RUNS:-} ]] || fail "GALPACA_RUNS is empty: name a folder on scratch in $site_file"
    [[ -d $GALPACA_RUNS ]] || fail "GALPACA_RUNS=$GALPACA_RUNS is no folder on ${HOSTNAME:-this node}: mkdir -p it, or mend $site_file"
    probe=$(mktemp "$GALPACA_RUNS/.probe-XXXXXX" 2>/dev/null) ||
        fail "GALPACA_RUNS=$GALPACA_RUNS cannot be written: free its files or its quota, chmod it, or name another in $site_file"
    if ! head -c 1048576 /dev/zero 2>/dev/null >"$probe"; then
        rm -f "$probe"
        fail "GALPACA_RUNS=$GALPACA_RUNS is full: free some of its space or quota, or name another in $site_file"
    fi
    rm -f "$probe"
}

load_modules() {
    ((${#GALPACA_MODULES[@]})) || return 0
    local name
    set +eu
    # A batch shell is no login shell; where it has not inherited the command, it is fetched.
    for name in /etc/profile.d/{modules,lmod,z00_lmod}.sh; do
        # shellcheck source=/dev/null
        [[ $(type -t module) ]] || [[ ! -r $name ]] || source "$name"
    done
    [[ $(type -t module) ]] || fail "there is no command module: source the file that defines it in $site_file"
    for name in "${GALPACA_MODULES[@]}"; do
        module load "$name" || fail "the module $name does not load: see module avail, and mend GALPACA_MODULES in $site_file"
    done
    set -eu
}

find_python() {
    local told
    if [[ -n $GALPACA_ENVIRONMENT ]]; then
        ((!${#GALPACA_CONTAINER[@]})) || fail "GALPACA_ENVIRONMENT and GALPACA_CONTAINER are both set: empty one in $site_file"
        [[ $GALPACA_ENVIRONMENT == /* ]] || GALPACA_ENVIRONMENT=$GALPACA_HOME/$GALPACA_ENVIRONMENT
        [[ -x $GALPACA_ENVIRONMENT/bin/python ]] ||
            fail "GALPACA_ENVIRONMENT=$GALPACA_ENVIRONMENT has no bin/python: make venv, or mend $site_file"
        export PATH="$GALPACA_ENVIRONMENT/bin:$PATH"
        unset PYTHONHOME
    fi
    python=("${GALPACA_CONTAINER[@]}" python)
    told=$("${python[@]}" -c 'import galpaca' 2>&1) ||
        fail "${python[*]} finds no galpaca (${told##*$'\n'}): pip install -e . there, or mend $site_file"
}

[[ -n ${SLURM_JOB_ID:-} ]] || fail "no job: submit it with sbatch"
read_site
check_runs
load_modules
find_python

# TERM is for the tasks of srun. A shell that died of it would take srun along, and with it all that they still say.
trap '' TERM
# srun asks for as many as the job has; since SLURM 22.05 it does not by itself.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# Tasks get what this script has set, also where the job itself was to get nothing (sbatch --export).
export SLURM_EXPORT_ENV=ALL
# Left over from a job that this one was submitted in; srun refuses them beside the script's own --mem.
[[ -z ${SLURM_MEM_PER_NODE:-} ]] || unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU
export PYTHONUNBUFFERED=1 # a log that is followed is up to date
echo "job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0}, ${SLURM_JOB_NUM_NODES:-1} node(s) ${SLURM_JOB_NODELIST:-}, runs in $GALPACA_RUNS, code in $GALPACA_HOME"
