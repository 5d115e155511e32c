# shellcheck shell=bash
# What a cluster is made of, each part cached by content (see cache.sh): the Go programs, the Debian root, the control
# plane's images, and the node image that holds them all. Each function prints the folder of its part.
: "${root:?common.sh comes first}"

kind_node=$root/hack/kind-node
kubernetes_minor=${PODWITNESS_K8S:-1.34}
node_packages=procps,mount,util-linux,containerd,runc,containernetworking-plugins,iptables,nftables,iproute2,conntrack,ethtool,socat,ca-certificates,kmod

# tools: `kind` and a static `kubectl`, for this machine; the latter is what images take too.
tools() {
    cached tools "$kind_node/programs" "=$kubernetes_minor" "=$(declare -f build_go_programs)" \
        -- build_go_programs ./kubectl sigs.k8s.io/kind
}

# node_programs: everything a node runs.
node_programs() {
    cached programs "$kind_node/programs" "=$kubernetes_minor" "=$(declare -f build_go_programs)" \
        -- build_go_programs ./kubernetes ./etcd ./coredns ./pause
}

build_go_programs() {
    local work version
    ensure_go "$(sed -n 's/^go //p' "$kind_node/programs/go.mod")"
    # shellcheck disable=SC2154 # out: cache.sh
    work=$out.src
    rm -rf "$work"
    cp -r "$kind_node/programs" "$work"
    cd "$work" || return
    select_minor "$kubernetes_minor"
    version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
    CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -o "$out/" -ldflags "$(version_flags "$version")" "$@"
    cd "$out" || return
    rm -rf "$work"
    printf '%s\n' "${version#v}" >"$out/version"
    [[ ! -e kubernetes ]] || ln -s kubernetes kubeadm
}

version_flags() {
    local package=k8s.io/component-base/version major minor
    IFS=. read -r major minor _ <<<"${1#v}"
    echo "-s -w -X $package.gitVersion=$1 -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
}

# The committed go.mod is for one minor. For another the newest patch is looked up, the pins are moved to it, and what
# the old one required indirectly is forgotten: minors do not compile with each other's dependencies.
select_minor() {
    local have version
    have=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
    [[ $have != v$1.* ]] || return 0
    version=$(go list -m -versions k8s.io/kubernetes | tr ' ' '\n' | grep -x "v$1\.[0-9]*" | tail -n 1) ||
        die "Kubernetes $1 is not published as a Go module (PODWITNESS_K8S is a minor like 1.34)"
    sed -i -e "s|\(=> k8s.io/[a-z-]* \)v0\..*|\1${version/v1/v0}|" -e "s|\(k8s.io/kubernetes \)v1\..*|\1$version|" \
        -e '/sigs.k8s.io\/kind /!{/\/\/ indirect/d}' -e '/^\tk8s.io\/[a-z-]* v0.[1-9]/d' go.mod
    GOFLAGS=-mod=mod go mod tidy
}

# node_rootfs: Debian's packages for a node, as rootfs.tar.
node_rootfs() {
    cached rootfs "=$node_packages" "=$(declare -f build_node_rootfs)" -- build_node_rootfs
}

build_node_rootfs() {
    local unwanted options=()
    need_apt mmdebstrap debian-archive-keyring
    for unwanted in doc man locale; do
        options+=(--dpkgopt="path-exclude=/usr/share/$unwanted/*")
    done
    # shellcheck disable=SC2016 # $1 is for the hook's shell: the new root
    options+=(--customize-hook='rm "$1/etc/containerd/config.toml"')
    mmdebstrap --variant=minbase --include="$node_packages" "${options[@]}" bookworm "$out/rootfs.tar"
}

# node_parts: what is large and the same on every node, mounted there at /kind/parts: the Kubernetes binary and the
# control plane's images as images.tar. "pause" holds the name of the pause image.
node_parts() {
    local programs rootfs
    programs=$(node_programs)
    rootfs=$(node_rootfs)
    cached node-parts "$kind_node/static-images" "$root/hack/oci" "=${programs##*/}" "=${rootfs##*/}" \
        "=$(declare -f build_node_parts)" -- build_node_parts "$programs" "$rootfs"
}

build_node_parts() {
    local programs=$1 unpacked=$out/unpacked
    mkdir "$unpacked"
    tar -C "$unpacked" -xf "$2/rootfs.tar"
    "$kind_node/static-images" "$programs" "$unpacked" >"$out/images.json"
    "$root/hack/oci" "$out/images.json" "$out/images.tar"
    grep -o '"[^"]*/pause:[^"]*"' "$out/images.json" | tr -d '"' >"$out/pause"
    printf 'v%s' "$(cat "$programs/version")" >"$out/version"
    cp "$programs/kubernetes" "$out/"
    rm -rf "$unpacked"
}

# node_image: a root file system for `docker import`, as node.tar: Debian, and hack/kind-node/node over it.
node_image() {
    local rootfs parts
    rootfs=$(node_rootfs)
    parts=$(node_parts)
    cached node-image "$kind_node/node" "=${rootfs##*/}" "=${parts##*/}" "=$(declare -f build_node_image fill_overlay)" \
        -- build_node_image "$rootfs" "$parts"
}

build_node_image() {
    local overlay=$out/overlay
    cp -r "$kind_node/node" "$overlay"
    fill_overlay "$2" "$overlay"
    cp "$1/rootfs.tar" "$out/node.tar"
    # Without folders: Docker refuses a path that comes twice.
    (cd "$overlay" && find . ! -type d -print0) | tar -C "$overlay" --null --files-from=- --sort=name --owner=0 \
        --group=0 --numeric-owner --mtime=@0 -cf "$out/overlay.tar"
    tar -A -f "$out/node.tar" "$out/overlay.tar"
    rm -rf "$overlay" "$out/overlay.tar"
}

fill_overlay() {
    local parts=$1 overlay=$2 name
    sed -i "s|@PAUSE@|$(cat "$parts/pause")|" "$overlay/etc/containerd/config.toml"
    cp "$parts/version" "$overlay/kind/version"
    for name in kubelet kubeadm kubectl; do
        ln -s /kind/parts/kubernetes "$overlay/usr/local/bin/$name"
    done
    mkdir -p "$overlay/opt/cni"
    ln -s /usr/lib/cni "$overlay/opt/cni/bin"
}

# Debian's packages come over the network while the compiler has the processors.
node_rootfs_in_background() {
    node_rootfs >/dev/null &
}
