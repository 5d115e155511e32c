# shellcheck shell=bash
# Sourced by every script in hack/: the clone's root, failing clearly, steps with their times; and with it cache.sh
# (cached builds), cargo.sh (builds with cargo) and need.sh (programs to install). The sourcing script has already said `set -euo pipefail`.
shopt -s inherit_errexit

# Where this clone is, and a short name for it that no other clone has.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck disable=SC2034 # for those who source this
clone_id=$(printf '%s' "$root" | sha256sum | cut -c1-8)
cache=${PODWITNESS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podwitness}
state=$root/.cluster
export PODWITNESS_CACHE=$cache

# Progress goes to descriptor 3, which stays the terminal while a step's own output goes to its log.
export PODWITNESS_STEP_DEPTH=${PODWITNESS_STEP_DEPTH:-0}
if ((PODWITNESS_STEP_DEPTH == 0)) || ! { : >&3; } 2>/dev/null; then
    exec 3>&2
fi

say() {
    printf '%*s%s\n' $((PODWITNESS_STEP_DEPTH * 2)) '' "$*" >&3
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The comment block at the head of a script is its help text.
print_help() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

# step TEXT COMMAND…: run a command or function with its output in a log file; show the log's end if it fails.
# It runs in a subshell: results go to files or standard output of what it calls, not to variables.
step() {
    local text=$1 log began status=0
    shift
    refuse_condition "step '$text'"
    log=$(step_log "$text")
    say "▸ $text"
    began=$EPOCHREALTIME
    set +e
    (
        set -e
        # shellcheck disable=SC2030 # for what is called in the step alone
        PODWITNESS_STEP_DEPTH=$((PODWITNESS_STEP_DEPTH + 1))
        "$@"
    ) >"$log" 2>&1 </dev/null
    status=$?
    set -e
    took "$text" "$began"
    if ((status)); then
        say "✗ $text ($(seconds_since "$began") s)"
        step_failed "$log" "$status"
    fi
    say "✓ $text ($(seconds_since "$began") s)"
}

# took TEXT BEGAN: for the table at the end of a run, where one is kept: how deep, how long, what.
took() {
    # shellcheck disable=SC2031 # that of the step which calls this
    [[ -z ${PODWITNESS_TIMES:-} ]] || printf '%s\t%s\t%s\n' "$PODWITNESS_STEP_DEPTH" "$(seconds_since "$2")" "$1" >>"$PODWITNESS_TIMES"
}

# In a condition or before && and ||, bash ignores `set -e` in everything that is called: a build whose first command
# fails would go on and pass.
refuse_condition() {
    local status
    set +e
    (
        set -e
        false
        true
    )
    status=$?
    set -e
    ((status)) || die "$1 is called in a condition, where set -e has no effect; call it on a line of its own"
}

step_log() {
    local folder=$state/logs/${0##*/}
    mkdir -p "$folder"
    printf '%s/%s.log' "$folder" "$(tr -cs '[:alnum:]\n' - <<<"$1" | cut -c1-60)"
}

# The innermost failing step shows its log; those around it only end. 70 marks "already shown".
step_failed() {
    if (($2 != 70)); then
        grep -aE -A 1 --no-group-separator '^(Error: |error|test .* FAILED|---- .* stdout ----)' "$1" | cut -c1-600 | head -n 60 | sed "s/^/  /" >&3 || true
        say "  last lines of $1:"
        tail -n 40 "$1" | sed "s/^/    /" >&3
    fi
    exit 70
}

seconds_since() {
    local micros=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
    printf '%d.%d' $((micros / 1000000)) $((micros / 100000 % 10))
}

# eventually SECONDS COMMAND…: try twice a second until it succeeds; the last failure's output is shown.
eventually() {
    local deadline=$((SECONDS + $1)) output
    shift
    until output=$("$@" 2>&1); do
        if ((SECONDS >= deadline)); then
            printf 'gave up waiting for: %s\n%s\n' "$*" "$output" >&2
            return 1
        fi
        sleep 0.5
    done
}

# Options of hack/install for bring_up.
install_options=()

# bring_up IMAGE…: a cluster that has these images, with Podwitness on it, for this shell. The cluster and the images are
# made at the same time: both compile, and both wait for what is fetched.
bring_up() {
    local pid
    "$root/hack/cluster" up &
    pid=$!
    "$root/hack/images" "$@"
    wait "$pid"
    eval "$("$root/hack/cluster" env)"
    set -- "${@/#/$root/.build/images/}"
    "$root/hack/cluster" load "${@/%/.tar}"
    "$root/hack/install" "${install_options[@]}"
}

# version_at_least HAVE WANT: compares dotted numbers.
version_at_least() {
    [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# shellcheck source-path=SCRIPTDIR source=cache.sh
source "$root/hack/lib/cache.sh"
# shellcheck source-path=SCRIPTDIR source=cargo.sh
source "$root/hack/lib/cargo.sh"
# shellcheck source-path=SCRIPTDIR source=need.sh
source "$root/hack/lib/need.sh"
