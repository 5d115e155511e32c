# shellcheck shell=bash
# What hack/bench and its lab measure processes with.

# The median of numbers in one string.
median_of() {
    tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'
}

# field NAME JSON: a whole number of one line of JSON.
field() {
    sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" <<<"$2"
}

# resident PID: KiB that the process has in memory.
resident() {
    awk '/^VmRSS/ {print $2}' "/proc/$1/status"
}

# ticks PID…: processor time of all of them so far; one that has ended counts nothing.
ticks() {
    local pid sum=0
    for pid in "$@"; do
        sum=$((sum + $(awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$pid/stat" 2>/dev/null || echo 0)))
    done
    printf '%d' "$sum"
}

# per TICKS COUNT UNIT: the time of so many ticks over COUNT, in so many units a second, with three decimals.
per() {
    awk -v t="$1" -v n="$2" -v u="$3" -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.3f", t / hz / n * u}'
}

# micros_since EPOCHREALTIME
micros_since() {
    printf '%d' $((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
}
