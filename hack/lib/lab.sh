# shellcheck shell=bash
# The lab of hack/bench: the sidecar and the recorder as they are shipped, each in its network namespace, in a world that
# costs next to nothing (podwitness-bench serve). No cluster is needed, and everything can be profiled.
#
#      plain ─┐                                  10.96.0.1:443   API server
#       pod ──┼── world ── routes between them   10.96.3.4:8444  control plane
#   recorder ─┘
: "${root:?common.sh comes first}" "${cache:?}" "${rounds:?}" "${mib:?}"

lab=pw-lab-$$
lab_api=10.96.0.1:443
lab_control=10.96.3.4:8444
declare -A lab_addresses=([plain]=10.244.1 [pod]=10.244.2 [recorder]=10.244.3)
lab_requests=${REQUESTS:-20000}
lab_watches=${WATCHES:-10000}
lab_total=${TOTAL:-1000000}
lab_pids=()

lab_main() {
    local row rows=("$@")
    ((${#rows[@]})) || rows=(latency cpu output watches flat events)
    ((EUID == 0)) || die "the lab needs root, for network namespaces"
    need_apt iproute2 openssl
    ulimit -n "$(ulimit -Hn)"
    if [[ -z ${PROGRAMS:-} ]]; then
        "$root/hack/images" sidecar recorder bench
        PROGRAMS=$root/.build/programs
    fi
    mkdir -p "$root/.build"
    dir=$(mktemp -d "$root/.build/lab-XXXXXX")
    trap lab_down EXIT
    lab_up
    for row in "${rows[@]}"; do
        say "▸ lab $row"
        "lab_$row" </dev/null
    done
}

lab_up() {
    local side
    ip netns add "$lab-world"
    ip -n "$lab-world" link set lo up
    ip -n "$lab-world" addr add "${lab_api%:*}/32" dev lo
    ip -n "$lab-world" addr add "${lab_control%:*}/32" dev lo
    ip netns exec "$lab-world" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    for side in "${!lab_addresses[@]}"; do
        ip netns add "$lab-$side"
        ip -n "$lab-$side" link set lo up
        ip -n "$lab-$side" link add eth0 type veth peer name "$side" netns "$lab-world"
        ip -n "$lab-$side" addr add "${lab_addresses[$side]}.2/24" dev eth0
        ip -n "$lab-world" addr add "${lab_addresses[$side]}.1/24" dev "$side"
        ip -n "$lab-$side" link set eth0 up
        ip -n "$lab-world" link set "$side" up
        ip -n "$lab-$side" route add default via "${lab_addresses[$side]}.1"
    done
    lab_world
    lab_recorder
    lab_sidecar
    lab_policy closed
    # Under fail closed a request passes once the tunnel is there and the recorder takes events.
    eventually 60 lab_client pod load "$(lab_path)" 1 1
}

lab_down() {
    local pid side
    for pid in "${lab_pids[@]}"; do
        # A drain would wait for what is in flight.
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait "${lab_pids[@]}" 2>/dev/null || true
    for side in world "${!lab_addresses[@]}"; do
        ip netns del "$lab-$side" 2>/dev/null || true
    done
    rm -rf "$dir"
}

lab_world() {
    mkfifo "$dir/policy"
    ip netns exec "$lab-world" "$PROGRAMS/podwitness-bench" serve "$dir" "$lab_api" "$lab_control" \
        "${lab_addresses[recorder]}.2:51820" <"$dir/policy" >"$dir/world.log" 2>&1 &
    world_pid=$!
    lab_pids+=("$world_pid")
    exec {policy}>"$dir/policy"
    eventually 30 grep -q serving "$dir/world.log"
}

lab_recorder() {
    mkdir -p "$dir/recorder"
    printf recorder >"$dir/recorder/token"
    ip netns exec "$lab-recorder" env PODWITNESS_CONTROL="podwitness-control.podwitness-system.svc:8444=${lab_control%:*}" \
        PODWITNESS_CONTROL_CA_FILE="$dir/control-ca.crt" PODWITNESS_TOKEN="$dir/recorder/token" \
        PODWITNESS_STORE="$dir/recorder/store" "$PROGRAMS/podwitness-recorder" ingest >"$dir/recorder.log" 2>&1 &
    recorder_pid=$!
    lab_pids+=("$recorder_pid")
}

# The sidecar's paths are fixed, so that it gets a view of the file system in which they lead to the lab's folder.
lab_sidecar() {
    local env run=$dir/run/podwitness
    mkdir -p "$run/state" "$run/identity" "$run/source/0" "$run/serviceaccount/0" "$dir/spool/podwitness"
    printf sidecar >"$run/identity/token"
    printf till >"$run/source/0/token"
    printf shop >"$run/source/0/namespace"
    cp "$dir/ca.crt" "$run/source/0/ca.crt"
    mapfile -d '' -t env <"$dir/sidecar.env"
    # shellcheck disable=SC2016 # the inner shell expands them
    ip netns exec "$lab-pod" sh -c 'mount --bind "$0/run" /run && mount --bind "$0/spool" /var/spool && exec env "$@"' \
        "$dir" "${env[@]}" "$PROGRAMS/podwitness-sidecar" >"$dir/sidecar.log" 2>&1 &
    sidecar_pid=$!
    lab_pids+=("$sidecar_pid")
    eventually 30 grep -q '"ready"' "$dir/sidecar.log"
}

# lab_policy off|open|closed: what the pod's grants ask. The sidecar hears of it at once.
lab_policy() {
    echo "$1" >&"$policy"
    sleep 0.5
}

# A path that is a little different each time would only test the upstream.
lab_path() {
    echo /api/v1/namespaces/shop/configmaps/prices
}

# lab_client plain|pod WHAT ARG…: podwitness-bench beside the sidecar, or where there is none.
lab_client() {
    local ca=$dir/ca.crt
    [[ $1 == plain ]] || ca=$dir/run/podwitness/serviceaccount/0/ca.crt
    CA_FILE=$ca TOKEN=till ip netns exec "$lab-$1" "$PROGRAMS/podwitness-bench" "$2" "$lab_api" \
        kubernetes.default.svc "${@:3}"
}

# lab_way direct|off|open|closed WHAT ARG…
lab_way() {
    local side=pod
    if [[ $1 == direct ]]; then side=plain; else lab_policy "$1"; fi
    lab_client "$side" "${@:2}"
}

lab_latency() {
    local round way result percentile
    declare -A of=()
    for ((round = 0; round < rounds; round++)); do
        for way in direct off open closed; do
            result=$(lab_way "$way" requests "$(lab_path)" $((lab_requests / 4)) 500)
            for percentile in p50 p99; do
                of[$way-$percentile]+=" $(field "$percentile" "$result")"
            done
        done
    done
    for percentile in p50 p99; do
        for way in direct off open closed; do
            of[$way]=$(median_of "${of[$way-$percentile]}")
        done
        say "  $percentile at 500 requests/s: direct ${of[direct]} µs; added without a grant $((of[off] - of[direct])) µs," \
            "with events under fail open $((of[open] - of[direct])) µs, under fail closed $((of[closed] - of[direct])) µs"
    done
    say "  budgets: 500 µs at p50 and 2000 µs at p99 under fail open, 1500 µs at p50 under fail closed"
}

lab_cpu() {
    local round way sidecar recorder result
    declare -A spent=() rate=()
    nginx_up
    for ((round = 0; round < rounds; round++)); do
        for way in off open closed; do
            lab_policy "$way"
            sidecar=$(ticks "$sidecar_pid") recorder=$(ticks "$recorder_pid")
            result=$(lab_client pod load "$(lab_path)" "$lab_requests" 16)
            spent[$way]+=" $(per $(($(ticks "$sidecar_pid") - sidecar)) "$lab_requests" 1000)"
            spent[recorder-$way]+=" $(per $(($(ticks "$recorder_pid") - recorder)) "$lab_requests" 1000)"
            rate[$way]+=" $((lab_requests * 1000 / $(field millis "$result")))"
        done
        sidecar=$(ticks "${nginx_pids[@]}")
        result=$(nginx_client load "$(lab_path)" "$lab_requests" 16)
        spent[nginx]+=" $(per $(($(ticks "${nginx_pids[@]}") - sidecar)) "$lab_requests" 1000)"
        rate[nginx]+=" $((lab_requests * 1000 / $(field millis "$result")))"
    done
    say "  ms of a processor for a request, 16 at a time, and requests/s:"
    for way in nginx off open closed; do
        say "    $way: $(median_of "${spent[$way]}") ms, $(median_of "${rate[$way]}")/s" \
            "${spent[recorder-$way]:+(the recorder besides: $(median_of "${spent[recorder-$way]}") ms)}"
    done
    say "  budget: 0.25 ms"
}

# nginx as Debian builds it, TLS on both sides; unpacked and not installed, so that no service is started.
nginx_up() {
    local nginx=$cache/nginx/usr/sbin/nginx
    [[ -x $nginx ]] || step "fetch nginx" nginx_fetch
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=kubernetes.default.svc -days 2 \
        -addext subjectAltName=DNS:kubernetes.default.svc -addext basicConstraints=critical,CA:FALSE \
        -keyout "$dir/nginx.key" -out "$dir/nginx.crt" 2>/dev/null
    cat >"$dir/nginx.conf" <<CONF
daemon off;
user root;
worker_processes 2;
pid $dir/nginx.pid;
error_log $dir/nginx.log;
events { worker_connections 1024; }
http {
    access_log $dir/nginx-access.log;
    client_body_temp_path $dir/nginx-body;
    proxy_temp_path $dir/nginx-proxy;
    fastcgi_temp_path $dir/nginx-fastcgi;
    uwsgi_temp_path $dir/nginx-uwsgi;
    scgi_temp_path $dir/nginx-scgi;
    upstream api { server $lab_api; keepalive 64; keepalive_requests 100000000; }
    server {
        listen 127.0.0.1:8443 ssl http2;
        keepalive_requests 100000000;
        ssl_certificate $dir/nginx.crt;
        ssl_certificate_key $dir/nginx.key;
        location / {
            proxy_pass https://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host kubernetes.default.svc;
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_server_name on;
            proxy_ssl_name kubernetes.default.svc;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate $dir/ca.crt;
        }
    }
}
CONF
    ip netns exec "$lab-plain" "$nginx" -e "$dir/nginx.log" -c "$dir/nginx.conf" &
    lab_pids+=($!)
    nginx_pids=($!)
    eventually 30 nginx_client load "$(lab_path)" 1 1
    mapfile -t -O 1 nginx_pids < <(pgrep -P "${nginx_pids[0]}")
}

nginx_fetch() {
    local folder
    folder=$(mktemp -d "$cache/.nginx-XXXXXX")
    (cd "$folder" && apt-get download nginx && dpkg-deb -x nginx_*.deb . && rm nginx_*.deb)
    rm -rf "$cache/nginx"
    mv -T "$folder" "$cache/nginx"
}

nginx_client() {
    CA_FILE=$dir/nginx.crt TOKEN=till ip netns exec "$lab-plain" "$PROGRAMS/podwitness-bench" "$1" 127.0.0.1:8443 \
        kubernetes.default.svc "${@:2}"
}

lab_output() {
    local round way sidecar recorder result path
    declare -A wall=() spent=()
    path="/api/v1/namespaces/shop/pods/till/exec?command=log&stdout=1&stderr=1&bytes=$((mib << 20))"
    for ((round = 0; round < rounds; round++)); do
        for way in direct off open closed; do
            sidecar=$(ticks "$sidecar_pid") recorder=$(ticks "$recorder_pid")
            result=$(lab_way "$way" output "$path" 1)
            wall[$way]+=" $(field millis "$result")"
            spent[$way]+=" $(per $(($(ticks "$sidecar_pid") - sidecar)) "$mib" 1024)"
            spent[recorder-$way]+=" $(per $(($(ticks "$recorder_pid") - recorder)) "$mib" 1024)"
        done
    done
    say "  $mib MiB of a session: wall time; seconds of a processor for a GiB in the sidecar and in the recorder:"
    for way in direct off open closed; do
        say "    $way: $(median_of "${wall[$way]}") ms; $(median_of "${spent[$way]}") s," \
            "$(median_of "${spent[recorder-$way]}") s"
    done
}

lab_watches() {
    local before with opened input
    lab_policy open
    before=$(resident "$sidecar_pid")
    coproc CLIENT { lab_client pod watches '/api/v1/namespaces/shop/configmaps?watch=true' "$lab_watches" 10; }
    input=${CLIENT[1]}
    read -r opened <&"${CLIENT[0]}" || die "the watches were not opened"
    with=$(resident "$sidecar_pid")
    say "  $(field open "$opened") watches, opened in $(field millis "$opened") ms: $((before / 1024)) MiB before," \
        "$((with / 1024)) MiB with them (budget 320), $(((with - before) / $(field open "$opened"))) KiB for each"
    exec {input}>&-
    wait "$CLIENT_PID"
    sleep 5
    say "  $(($(resident "$sidecar_pid") / 1024)) MiB after them"
}

lab_flat() {
    local part shown=''
    lab_policy open
    for ((part = 0; part < 10; part++)); do
        lab_client pod load "$(lab_path)" $((lab_total / 10)) 16 >/dev/null
        shown+=" $(resident "$sidecar_pid")/$(resident "$recorder_pid")"
    done
    say "  KiB of sidecar/recorder after each tenth of $lab_total requests:$shown"
}

# One core for the recorder and the client that it acknowledges to.
lab_events() {
    local line bench=(cargo bench --locked --manifest-path "$root/Cargo.toml" -p podwitness-recorder --bench events)
    ensure_rust
    step "build the bench of the recorder" "${bench[@]}" --no-run
    line=$(taskset -c 0 "${bench[@]}" 2>/dev/null | grep thrpt: | head -n 1)
    say "  acknowledged on one core: ${line#*thrpt:} (low, middle, high; budget 20 Kelem/s)"
}
