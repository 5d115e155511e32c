# shellcheck shell=bash
# Clients that other people made, for the images in which tests run them against the API server: Debian's releases of
# kubectl and curl, the official Python and JavaScript clients, client-go, and hack/interop/speak; with iptables and nft,
# for rules of service meshes; apart, because of its size, fabric8 with a Java runtime. Each part is cached by content
# (cache.sh).
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
        "=$(declare -f build_clients_root debian_with kubectl_of)" -- build_clients_root
}

build_clients_root() {
    debian_with kubectl,python3-kubernetes,nodejs,curl,iptables,nftables
    # Files of an image have no age, and Python goes by that of a source: unless told otherwise, it compiles each anew.
    # shellcheck disable=SC2154 # out: cache.sh
    chroot "$out/root" sh -c 'python3 -m compileall -qf --invalidation-mode unchecked-hash \
        -x "/(test|idlelib|tkinter|lib2to3)/" /usr/lib/python3 /usr/lib/python3.[0-9]*'
    ln -s /usr/bin/kubectl "$out/root/usr/local/bin/kubectl-$clients_suite"
    # shellcheck disable=SC2086 # release and package
    kubectl_of $clients_old
    # shellcheck disable=SC2086
    kubectl_of $clients_new
}

# debian_with PACKAGE,… [OPTION…]: what is essential of Debian, and these, in $out/root.
debian_with() {
    local unwanted options=()
    need_apt mmdebstrap debian-archive-keyring
    for unwanted in doc man locale; do
        options+=(--dpkgopt="path-exclude=/usr/share/$unwanted/*")
    done
    mmdebstrap --variant=essential --include="$1" "${options[@]}" "${@:2}" "$clients_suite" "$out/root.tar"
    mkdir "$out/root"
    tar -C "$out/root" --exclude='./dev/*' --exclude='./var/cache/*' -xf "$out/root.tar"
    rm "$out/root.tar"
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

# js_client: hack/interop/js-client with its modules, as Node.js runs it.
js_client() {
    cached js-client "$interop/js-client" "=$(declare -f build_js_client)" -- build_js_client
}

# The modules are those of the lock file, without what only people, other runtimes and other platforms read.
build_js_client() {
    command -v npm >/dev/null || need_apt nodejs npm
    cp "$interop"/js-client/{main.js,package.json,package-lock.json} "$out"
    cd "$out" || return
    npm ci --omit=dev --ignore-scripts --no-audit --no-fund --no-update-notifier
    find node_modules -type f \( -name '*.map' -o -name '*.ts' -o -name '*.md' -o -path '*/prebuilds/*' \) -delete
    find node_modules -type d -empty -delete
}

# java_root: the file system of the image with a Java runtime, as root/.
java_root() {
    cached java-root "=$clients_suite" "=$(declare -f build_java_root debian_with)" -- build_java_root
}

build_java_root() {
    # Setting it up makes links in this folder, to manual pages that are left out.
    # shellcheck disable=SC2016 # for mmdebstrap to expand
    debian_with default-jre-headless --essential-hook='mkdir -p "$1/usr/share/man/man1"'
}

# java_client: hack/interop/java-client as classes/, what it needs as lib/.
java_client() {
    cached java-client "$interop"/java-client/{pom.xml,Client.java} "=$(declare -f build_java_client)" -- build_java_client
}

build_java_client() {
    need_apt maven
    command -v javac >/dev/null || need_apt default-jdk-headless
    mvn --batch-mode --quiet --strict-checksums --file "$interop/java-client/pom.xml" -Dbuild="$out" \
        compiler:compile dependency:copy-dependencies
    rm -rf "$out"/{generated-sources,maven-status}
}
