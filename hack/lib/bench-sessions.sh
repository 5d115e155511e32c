# shellcheck shell=bash
# The rows of hack/bench about sessions: what their output costs, and how much memory they take.
: "${plain:?}" "${open:?}" "${closed:?}" "${rounds:?}" "${mib:?}" "${sessions:?}" "${talkers:?}"

text='the quick brown fox jumps over the lazy dog 0123456789 and again'

# What carries the output where nothing is recorded, by the names of the processes; kubectl's share is measured in its
# pod. The same work is done when the output is recorded.
carriers=(kube-apiserver kubelet containerd containerd-shim)

row_exec() {
    local round namespace result carrier
    # Their own work, which goes on meanwhile, is taken off.
    declare -gA idle=() wall=() spent=()
    idle_ticks
    for ((round = 0; round < rounds; round++)); do
        for namespace in "$plain" "$open" "$closed"; do
            exec_round "$namespace"
        done
    done
    say "  $mib MiB: direct $(median_of "${wall[$plain]}") ms, fail open $(median_of "${wall[$open]}") ms," \
        "fail closed $(median_of "${wall[$closed]}") ms"
    say "  seconds of a processor for a GiB:"
    result=''
    for carrier in "${carriers[@]}" kubectl; do
        result+=", $carrier $(seconds_of "$plain" "$carrier")"
    done
    say "    direct: $(seconds_of "$plain" all)${result}"
    for namespace in "$open" "$closed"; do
        say "    $namespace: sidecar $(seconds_of "$namespace" sidecar), recorder $(seconds_of "$namespace" recorder)" \
            "(their ends of the tunnel with them), $(share_of "$namespace") % on top of the direct path's (budget 25 %);" \
            "the direct path meanwhile: $(seconds_of "$namespace" all)"
    done
}

# exec_round NAMESPACE: output once, from the pod there.
exec_round() {
    local carrier client took sidecar='' recorder all=0
    declare -A before=()
    [[ $1 == "$plain" ]] || sidecar=$(sidecar_of "$1")
    for carrier in "${carriers[@]}"; do before[$carrier]=$(ticks_of "$carrier"); done
    # shellcheck disable=SC2046 # one word each
    recorder=$(ticks $(recorder_pids))
    # shellcheck disable=SC2086 # nothing where there is none
    before[sidecar]=$(ticks $sidecar)
    read -r took client < <(exec_output "$1")
    wall[$1]+=" $((took / 1000))"
    for carrier in "${carriers[@]}"; do
        spend "$1" "$carrier" $(($(ticks_of "$carrier") - before[$carrier] - idle[$carrier] * took / 5000000))
    done
    spend "$1" kubectl "$client"
    spend "$1" all "$all"
    # shellcheck disable=SC2086
    spend "$1" sidecar $(($(ticks $sidecar) - before[sidecar]))
    # shellcheck disable=SC2046
    spend "$1" recorder $(($(ticks $(recorder_pids)) - recorder))
}

# spend NAMESPACE WHAT TICKS; the caller's `all` is the sum so far.
spend() {
    spent[$1-$2]+=" $3"
    all=$((all + $3))
}

seconds_of() {
    per "$(median_of "${spent[$1-$2]}")" "$mib" 1024
}

share_of() {
    awk -v s="$(median_of "${spent[$1-sidecar]}")" -v r="$(median_of "${spent[$1-recorder]}")" \
        -v d="$(median_of "${spent[$plain-all]}")" 'BEGIN {printf "%.0f", (s + r) * 100 / d}'
}

# What the carriers do in five seconds without us.
idle_ticks() {
    local carrier
    for carrier in "${carriers[@]}"; do idle[$carrier]=$(ticks_of "$carrier"); done
    sleep 5
    for carrier in "${carriers[@]}"; do idle[$carrier]=$(($(ticks_of "$carrier") - idle[$carrier])); done
}

# ticks_of NAME: of all processes of that name; the kernel keeps 15 letters.
ticks_of() {
    # shellcheck disable=SC2046 # a number each
    ticks $(pgrep -x "${1:0:15}")
}

recorder_pids() {
    pgrep -f '^/podwitness-recorder ingest'
}

# Microseconds that the output took, and ticks of the kubectl that read it.
exec_output() {
    local began=$EPOCHREALTIME client
    # shellcheck disable=SC2016 # the shell of the pod expands it
    client=$(kubectl -n "$1" exec client -c app -- sh -c \
        "kubectl -n $plain exec target -- sh -c 'yes $text | head -c $((mib << 20))' >/dev/null
         awk '{print \$16 + \$17}' /proc/\$\$/stat")
    printf '%d %d\n' "$(micros_since "$began")" "$client"
}

row_sessions() {
    local transport target=/api/v1/namespaces/$plain/pods/target
    for transport in websocket spdy; do
        # Attached to one container, so that they cost the node next to nothing.
        keep "$transport" "$sessions" "$target/attach?stdout=1&stderr=1" 0
        keep "$transport" "$talkers" "$target/exec?$(query_of sh -c "yes '$text' | head -c 1048576; cat")&stdin=1&stdout=1&stderr=1" 1048576
    done
    say "  budgets: 80 KiB for a session over WebSocket, 128 KiB over SPDY; 2000 sessions within 320 MiB"
}

# query_of WORD…: a command as the API has it.
query_of() {
    python3 -c 'import sys, urllib.parse; print("&".join("command=" + urllib.parse.quote(w, safe="") for w in sys.argv[1:]))' "$@"
}

# keep TRANSPORT COUNT PATH BYTES: the sidecar's memory before, with and after so many sessions that say so many bytes.
# They end with the input.
keep() {
    local pid before with opened input
    pid=$(sidecar_of "$open")
    before=$(resident "$pid")
    coproc CLIENT { kubectl -n "$open" exec -i client -c app -- podwitness-bench sessions \
        kubernetes.default.svc:443 kubernetes.default.svc "$3" "$2" "$1" "$4"; }
    input=${CLIENT[1]}
    read -r opened <&"${CLIENT[0]}" || die "the sessions were not opened"
    # What they said has been sent by then.
    sleep 5
    with=$(resident "$pid")
    exec {input}>&-
    wait "$CLIENT_PID"
    sleep 5
    say "  $1, $(field open "$opened") sessions that said $(($4 >> 10)) KiB each, after $(field millis "$opened") ms:" \
        "$((before / 1024)) MiB before, $((with / 1024)) MiB with them," \
        "$(((with - before) / $(field open "$opened"))) KiB for each, $(($(resident "$pid") / 1024)) MiB after them"
}
