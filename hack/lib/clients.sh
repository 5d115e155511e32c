# shellcheck shell=bash
# Clients that other people made, for the image in which tests run them against the API server: Debian's releases of
# kubectl and curl, the official Python client, client-go, and hack/interop/speak. Each part is cached by content (cache.sh).
: "${root:?common.sh comes first}"

interop=$root/hack/interop
# The image is this release of Debian, with its own kubectl.
clients_suite=trixie
# Before kubectl knew sessions over WebSocket, and after this repository's Kubernetes.
clients_old="bookworm kubernetes-client"
clients_new="forky kubectl"

# clients_root: the file system of the image, as root/.
clients_root() {
    cached clients-root "=$clients_suite, $clients_old, $clients_new" \
        "=$(declare -f build_clients_root kubectl_of)" -- build_clients_root
}

build_clients_root() {
    local unwanted options=()
    need_apt mmdebstrap debian-archive-keyring
    for unwanted in doc man locale; do
        options+=(--dpkgopt="path-exclude=/usr/share/$unwanted/*")
    done
    # shellcheck disable=SC2154 # out: cache.sh
    mmdebstrap --variant=essential --include=kubectl,python3-kubernetes,curl "${options[@]}" "$clients_suite" "$out/root.tar"
    mkdir "$out/root"
    tar -C "$out/root" --exclude='./dev/*' --exclude='./var/cache/*' -xf "$out/root.tar"
    rm "$out/root.tar"
    ln -s /usr/bin/kubectl "$out/root/usr/local/bin/kubectl-$clients_suite"
    # shellcheck disable=SC2086 # release and package
    kubectl_of $clients_old
    # shellcheck disable=SC2086
    kubectl_of $clients_new
}

# kubectl_of RELEASE PACKAGE: as /usr/local/bin/kubectl-RELEASE; it asks for no more than an old C library. Mirrors of a
# release in the making may lag behind: their signatures count, their age does not.
kubectl_of() {
    mmdebstrap --variant=extract --include="$2" --aptopt='Acquire::Check-Valid-Until "false"' "$1" "$out/$1.tar"
    tar -O -xf "$out/$1.tar" ./usr/bin/kubectl >"$out/root/usr/local/bin/kubectl-$1"
    chmod 0755 "$out/root/usr/local/bin/kubectl-$1"
    rm "$out/$1.tar"
}

# Debian's packages come over the network while the compiler has the processors.
clients_root_in_background() {
    clients_root >/dev/null &
}

# client_go: hack/interop/client-go as a static program. Its modules are those of the cluster's programs, so that it
# takes seconds where these are built.
client_go() {
    cached client-go "$interop/client-go" "=$(declare -f build_client_go)" -- build_client_go
}

build_client_go() {
    ensure_go "$(sed -n 's/^go //p' "$interop/client-go/go.mod")"
    cd "$interop/client-go" || return
    CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w" -o "$out/" .
}
