# shellcheck shell=bash
# A Docker engine of this clone's own, for machines where none runs.
#
# It lives in a network, mount and process namespace: bridges, NAT rules and sysctls of Docker and kind stay in there,
# and when its process 1 is killed the kernel ends everything that was started in it and unmounts everything that was
# mounted. A point-to-point link leads in. What is outside and therefore cleaned up by hand: the link, the file that
# holds the network namespace, cgroups, and the kernel settings that every kubelet changes.
: "${clone_id:?common.sh comes first}" "${cache:?}" "${root:?}"

shared_run=/run/podwitness
# Set by every kubelet, for the whole machine; the last by Docker for kind's network, in the engine's network namespace.
changed_sysctls=(vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys
    kernel/keys/root_maxbytes net/ipv6/conf/all/forwarding)

# names_of CLONE_ID: the names and places of that clone's engine.
names_of() {
    engine_id=$1
    engine_name=podwitness-$1
    engine_link=pw$1
    engine_run=/run/$engine_name
    engine_data=$cache/engine/$1
    engine_socket=$engine_run/docker.sock
}
names_of "$clone_id"

engine_start() {
    engine_alive && return
    remove_dead_engines
    engine_stop
    mkdir -p "$engine_run" "$engine_data"
    echo "$root" >"$engine_run/clone"
    save_sysctls
    make_network
    write_daemon_config
    (
        close_descriptors
        exec </dev/null >"$engine_run/dockerd.log" 2>&1
        exec setsid nsenter --net="$engine_run/netns" unshare --mount --propagation private --pid --fork --kill-child \
            --mount-proc docker-init -s -- dockerd --config-file "$engine_run/daemon.json"
    ) &
    remember_process $! >"$engine_run/engine.pid"
    eventually 30 engine_answers || engine_did_not_start
}

engine_did_not_start() {
    tail -n 20 "$engine_run/dockerd.log" >&2
    die "the engine did not start; the lines above are its last"
}

# Nothing of this script may live on in the engine: who reads our output or waits for our locks would wait for ever.
close_descriptors() {
    local descriptor
    for descriptor in "/proc/$BASHPID/fd"/*; do
        descriptor=${descriptor##*/}
        ((descriptor < 3)) || exec {descriptor}>&-
    done
}

engine_docker() {
    DOCKER_HOST=unix://$engine_socket docker "$@"
}

engine_answers() {
    engine_alive && engine_docker version >/dev/null
}

# A process is its number and its start time: numbers come back.
remember_process() {
    printf '%s %s\n' "$1" "$(start_time "$1")"
}

# Empty for a process that is gone or only waits to be reaped.
start_time() {
    sed -e 's/.*) //' -e '/^[ZX]/d' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

engine_alive() {
    local pid began
    read -r pid began 2>/dev/null <"$engine_run/engine.pid" || return 1
    [[ -n $began && $(start_time "$pid") == "$began" ]]
}

engine_stop() {
    local pid
    if engine_alive; then
        read -r pid _ <"$engine_run/engine.pid"
        kill -KILL "$pid"
        eventually 20 no_process_in_engine
    fi
    remove_cgroups
    remove_network
    restore_sysctls
    rm -rf "$engine_run" "$engine_data"
    rmdir "$cache/engine" 2>/dev/null || true
}

# A run that was killed leaves gigabytes, a network and changed kernel settings, and its clone may never come back to
# put them away. Engines whose clone is at work just now are left alone: it holds its lock.
remove_dead_engines() {
    local folder
    for folder in /run/podwitness-*/; do
        [[ ! -e $folder/clone ]] || (remove_if_dead "$(basename "$folder")") || true
    done
    # What a reboot leaves: /run is empty then.
    for folder in "$cache"/engine/*/; do
        [[ ! -d $folder || -d /run/podwitness-$(basename "$folder") ]] || rm -rf "$folder"
    done
}

remove_if_dead() {
    local clone
    names_of "${1#podwitness-}"
    clone=$(cat "$engine_run/clone")
    if [[ -d $clone/.cluster ]]; then
        exec {dead_lock}>"$clone/.cluster/lock"
        flock -n "$dead_lock" || return 0
    fi
    engine_alive || { say "· removing what is left of the engine of $clone" && engine_stop; }
}

no_process_in_engine() {
    local inode
    [[ -e $engine_run/netns ]] || return 0
    inode=$(stat -Lc %i "$engine_run/netns")
    [[ $(readlink /proc/[0-9]*/ns/net 2>/dev/null) != *"net:[$inode]"* ]]
}

write_daemon_config() {
    cat >"$engine_run/daemon.json" <<JSON
{"data-root": "$engine_data", "exec-root": "$engine_run/exec", "pidfile": "$engine_run/dockerd.pid",
 "hosts": ["unix://$engine_socket"], "group": "root", "bridge": "none", "userland-proxy": false,
 "default-address-pools": [{"base": "172.30.0.0/16", "size": 24}],
 "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "/$engine_name"$(runtime_config)}
JSON
}

# See hack/kind-node/runc-wrapper: only where CAP_SYS_RESOURCE (bit 24) is missing.
runtime_config() {
    local bounding
    bounding=$(sed -n 's/^CapBnd:\t//p' /proc/self/status)
    (((16#$bounding >> 24) & 1)) && return
    cp "$root/hack/kind-node/runc-wrapper" "$engine_run/runc-wrapper"
    printf ', "default-runtime": "mended", "runtimes": {"mended": {"path": "%s"}}' "$engine_run/runc-wrapper"
}

# === network: a namespace held by a file, and a link into it from a range that is meant for tests (RFC 2544)

make_network() {
    local outer inner
    touch "$engine_run/netns"
    unshare --net="$engine_run/netns" true
    engine_addresses >"$engine_run/addresses"
    read -r outer inner <"$engine_run/addresses"
    ip link add "$engine_link" type veth peer name host netns "$engine_run/netns"
    ip addr add "$outer/30" dev "$engine_link"
    ip link set "$engine_link" up
    in_engine ip addr add "$inner/30" dev host
    in_engine ip link set host up
    in_engine ip link set lo up
    refuse_what_lies_beyond "$outer"
}

# The link leads to this machine only. What pods send further is refused, not lost: they learn at once, every time (a
# kernel sends one refusal a second by default). Docker makes this chain its first one and leaves what is in it.
refuse_what_lies_beyond() {
    in_engine sh -c 'echo 0 >/proc/sys/net/ipv4/icmp_ratelimit'
    in_engine ip route add default via "$1" dev host
    in_engine iptables -N DOCKER-USER
    in_engine iptables -A DOCKER-USER -o host ! -d "$1" -p tcp -j REJECT --reject-with tcp-reset
    in_engine iptables -A DOCKER-USER -o host ! -d "$1" -j REJECT
}

in_engine() {
    nsenter --net="$engine_run/netns" "$@"
}

# Address of the engine's end of the link: where published ports are reached.
engine_address() {
    local inner
    read -r _ inner <"$engine_run/addresses"
    echo "$inner"
}

# The first /30 of 198.18.0.0/15, from a place that depends on the clone, that this machine does not use.
engine_addresses() {
    local try base prefix
    for ((try = 0; try < 64; try++)); do
        base=$((((16#$clone_id + try) % 32768) * 4))
        prefix=198.$((18 + base / 65536)).$((base / 256 % 256))
        if [[ -z $(ip -4 addr show to "$prefix.$((base % 256))/30") ]]; then
            echo "$prefix.$((base % 256 + 1)) $prefix.$((base % 256 + 2))"
            return
        fi
    done
    die "no free network in 198.18.0.0/15 for the engine's link"
}

remove_network() {
    ip link del "$engine_link" 2>/dev/null || true
    if [[ -e $engine_run/netns ]]; then
        umount "$engine_run/netns" 2>/dev/null || true
    fi
}

# === cgroups: emptied by the kernel when the processes are gone, removed here

remove_cgroups() {
    local group
    for group in /sys/fs/cgroup/*/"$engine_name" /sys/fs/cgroup/"$engine_name"; do
        [[ ! -d $group ]] || eventually 10 remove_cgroup "$group"
    done
}

remove_cgroup() {
    find "$1" -depth -type d -exec rmdir {} +
}

# === kernel settings: saved by the first cluster of this machine, put back by the last; only root can

save_sysctls() {
    local name
    ((EUID == 0)) || return 0
    mkdir -p "$shared_run"
    (
        flock 9
        mkdir -p "$shared_run/engines"
        if [[ -z $(ls "$shared_run/engines") ]]; then
            for name in "${changed_sysctls[@]}"; do
                [[ ! -r /proc/sys/$name ]] || printf '%s %s\n' "$name" "$(cat "/proc/sys/$name")"
            done >"$shared_run/sysctls"
        fi
        touch "$shared_run/engines/$engine_id"
    ) 9>"$shared_run/lock"
}

restore_sysctls() {
    local name value
    [[ -e $shared_run/engines/$engine_id ]] || return 0
    (
        flock 9
        rm "$shared_run/engines/$engine_id"
        if [[ -z $(ls "$shared_run/engines") ]]; then
            while read -r name value; do
                [[ $(cat "/proc/sys/$name") == "$value" ]] || echo "$value" >"/proc/sys/$name"
            done <"$shared_run/sysctls"
            rm -r "$shared_run"
        fi
    ) 9>"$shared_run/lock"
}
