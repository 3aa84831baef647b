# shellcheck shell=bash
# Common setup of all jobs; sourced by the scripts in this folder, never run directly.
#
# Sets `python` (the command that starts Python) and `GALPACA_RUNS`, and defines `with_experiment`. Errors are one line in
# the job's log and exit code 2, before anything is written.

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Sets the array `overrides` to the arguments of train.py.
with_experiment() { # DEFAULT [OVERRIDE...]; ~experiment removes the experiment
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
    local site=${GALPACA_SITE:-$GALPACA_HOME/slurm/site.env} message
    [[ -r $site ]] || fail "$site does not exist: cp slurm/site.env.example slurm/site.env, and fill it in"
    message=$(bash -n "$site" 2>&1) || fail "$site is not valid shell: ${message%%$'\n'*}"
    GALPACA_MODULES=() GALPACA_CONTAINER=() GALPACA_ENVIRONMENT=
    # Site files are rarely written for strict mode.
    set +eu
    # shellcheck source=/dev/null
    source "$site"
    set -eu
    site_file=$site
}

check_runs() {
    local probe
    [[ -n ${GALPACA_RUNS:-} ]] || fail "GALPACA_RUNS is empty: set it to a folder on scratch in $site_file"
    [[ -d $GALPACA_RUNS ]] || fail "GALPACA_RUNS=$GALPACA_RUNS is not a folder on ${HOSTNAME:-this node}: mkdir -p it, or fix $site_file"
    probe=$(mktemp "$GALPACA_RUNS/.probe-XXXXXX" 2>/dev/null) ||
        fail "GALPACA_RUNS=$GALPACA_RUNS is not writable: free inodes or quota, chmod it, or set another in $site_file"
    if ! head -c 1048576 /dev/zero 2>/dev/null >"$probe"; then
        rm -f "$probe"
        fail "GALPACA_RUNS=$GALPACA_RUNS is full: free space or quota, or set another in $site_file"
    fi
    rm -f "$probe"
}

load_modules() {
    ((${#GALPACA_MODULES[@]})) || return 0
    local name
    set +eu
    # A batch shell is not a login shell; if it has not inherited the module command, define it.
    for name in /etc/profile.d/{modules,lmod,z00_lmod}.sh; do
        # shellcheck source=/dev/null
        [[ $(type -t module) ]] || [[ ! -r $name ]] || source "$name"
    done
    [[ $(type -t module) ]] || fail "no command module: source the file that defines it in $site_file"
    for name in "${GALPACA_MODULES[@]}"; do
        module load "$name" || fail "the module $name does not load: see module avail, and fix GALPACA_MODULES in $site_file"
    done
    set -eu
}

find_python() {
    local message
    if [[ -n $GALPACA_ENVIRONMENT ]]; then
        ((!${#GALPACA_CONTAINER[@]})) || fail "GALPACA_ENVIRONMENT and GALPACA_CONTAINER are both set: empty one in $site_file"
        [[ $GALPACA_ENVIRONMENT == /* ]] || GALPACA_ENVIRONMENT=$GALPACA_HOME/$GALPACA_ENVIRONMENT
        [[ -x $GALPACA_ENVIRONMENT/bin/python ]] ||
            fail "GALPACA_ENVIRONMENT=$GALPACA_ENVIRONMENT has no bin/python: make venv, or fix $site_file"
        export PATH="$GALPACA_ENVIRONMENT/bin:$PATH"
        unset PYTHONHOME
    fi
    python=(${GALPACA_CONTAINER[@]+"${GALPACA_CONTAINER[@]}"} python) # bash before 4.4 calls an empty array unset
    message=$("${python[@]}" -c 'import galpaca' 2>&1) ||
        fail "${python[*]} cannot import galpaca (${message##*$'\n'}): pip install -e . there, or fix $site_file"
}

check_overrides='
import sys
from galpaca.app.config.composition import compose
from galpaca.app.entrypoint import run_command
sys.exit(run_command(lambda: compose(sys.argv[1:])))'

# Of a dry run, this stands for srun: it shows the command, checks its overrides and starts nothing.
dry_run() {
    printf 'srun'
    printf ' %q' "$@"
    echo
    while [[ $1 != "${python[0]}" ]]; do
        shift
    done
    local given=("${@:${#python[@]}+1}") kept=()
    # What are options of the command itself is no override.
    while ((${#given[@]})); do
        case ${given[0]} in
            --steps | --minutes) given=("${given[@]:1}") ;;
            --*) ;;
            *) kept+=("${given[0]}") ;;
        esac
        given=(${given[@]+"${given[@]:1}"})
    done
    if [[ ${kept[0]} == *train.py ]]; then
        "${python[@]}" -c "$check_overrides" "${kept[@]:1}" || exit
    elif [[ ${kept[2]} == rehearse ]]; then
        "${python[@]}" -c "$check_overrides" "${kept[@]:3}" || exit
    fi
    exit 0 # what follows needs what srun would have made
}

if [[ -n ${GALPACA_DRY_RUN:-} ]]; then
    srun() { dry_run "$@"; }
elif [[ -z ${SLURM_JOB_ID:-} ]]; then
    fail "not in a SLURM job: submit it with sbatch, or try it with slurm/submit --dry-run"
fi
read_site
check_runs
load_modules
find_python

# SIGTERM is for the tasks of srun. If this shell died of it, srun and the tasks' last output would be lost.
trap '' TERM
# Since SLURM 22.05, srun does not inherit --cpus-per-task from the job.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# Pass this script's environment to the tasks, even if the job was submitted with sbatch --export=NONE.
export SLURM_EXPORT_ENV=ALL
# Inherited if this job was submitted from within another one; srun rejects them together with the script's --mem.
[[ -z ${SLURM_MEM_PER_NODE:-} ]] || unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU
export PYTHONUNBUFFERED=1 # so that the log is up to date
echo "job ${SLURM_JOB_ID:-(none)}, restart ${SLURM_RESTART_COUNT:-0}, ${SLURM_JOB_NUM_NODES:-1} node(s) ${SLURM_JOB_NODELIST:-}, runs in $GALPACA_RUNS, code in $GALPACA_HOME"
