# shellcheck shell=bash
# Programs that the scripts need and a fresh machine may lack.
: "${root:?common.sh comes first}" "${cache:?}"

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $*"
    fi
}

# need_apt PACKAGE…: install what is missing. Package lists are refreshed only if that fails without.
need_apt() {
    local missing=() package
    for package in "$@"; do
        apt_has "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "this is no Debian or Ubuntu; please install: ${missing[*]}"
    step "install ${missing[*]}" apt_install "${missing[@]}"
}

apt_has() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

apt_install() {
    apt_get install "$@" && return
    apt_get update
    apt_get install "$@"
}

# One at a time, as the lock on the package lists does not wait.
apt_get() {
    mkdir -p "$cache"
    as_root flock "$cache/apt.lock" env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

# ensure_go MINIMUM: put a go command on PATH that is new enough: the one there, one that can fetch its own
# toolchain, the distribution's, or the official archive.
ensure_go() {
    local minimum=$1
    PATH=$PATH:/usr/local/go/bin
    go_at_least "$minimum" && return
    if [[ ! -x $cache/go/$minimum/bin/go ]]; then
        if go_in_apt "$minimum"; then
            need_apt golang-go
        else
            need_apt ca-certificates curl
            step "install Go $minimum" install_go "$minimum"
        fi
    fi
    PATH=$cache/go/$minimum/bin:$PATH
    go_at_least "$minimum" || die "go $minimum or newer is needed and could not be installed; put one on PATH"
}

go_at_least() {
    local have
    command -v go >/dev/null || return 1
    have=$(GOTOOLCHAIN=local go env GOVERSION)
    version_at_least "${have#go}" "$1" && return
    # From 1.21 on, go runs a newer toolchain that it fetches as a module.
    version_at_least "${have#go}" 1.21 && GOTOOLCHAIN=go$1+auto go version >/dev/null 2>&1 && export GOTOOLCHAIN=go$1+auto
}

go_in_apt() {
    local candidate
    candidate=$(apt-cache policy golang-go 2>/dev/null | sed -n 's/.*Candidate: \(.*:\)\?//p')
    [[ -n $candidate && $candidate != *none* ]] && version_at_least "${candidate%%[~-]*}" "$1"
}

install_go() {
    local archive work
    archive=go$1.linux-$(dpkg --print-architecture).tar.gz
    mkdir -p "$cache/go"
    work=$(mktemp -d "$cache/go/.new-XXXXXX")
    curl -fsSL "https://dl.google.com/go/$archive" -o "$work/$archive"
    curl -fsSL "https://dl.google.com/go/$archive.sha256" -o "$work/sum"
    (cd "$work" && echo "$(cat sum)  $archive" | sha256sum -c - && tar -xzf "$archive")
    mv -T "$work/go" "$cache/go/$1"
    rm -rf "$work"
}

# ensure_rust: cargo and rustc of the version in rust-toolchain.toml, with its components.
ensure_rust() {
    local channel
    channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$root/rust-toolchain.toml")
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    need_apt gcc libc6-dev
    rust_is "$channel" && return
    if ! command -v rustup >/dev/null; then
        need_apt ca-certificates curl
        step "install rustup" install_rustup
    fi
    step "install Rust $channel" rustup toolchain install "$channel" --profile minimal --component clippy,rustfmt
    rust_is "$channel" || die "rust $channel is needed and could not be installed; install it with rustup"
}

rust_is() {
    command -v cargo >/dev/null && [[ $(cd "$root" && rustc --version 2>/dev/null) == "rustc $1 "* ]]
}

install_rustup() {
    curl --proto '=https' --tlsv1.2 -fsSL https://sh.rustup.rs | sh -s -- -y --no-modify-path --profile minimal --default-toolchain none
}

# rust_env: intermediates are shared by all clones of this machine; what is built stays in the clone's target/.
rust_env() {
    export CARGO_BUILD_BUILD_DIR=$cache/build
}
