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

# The toolchain that is fetched where none is, as the Go module proxy serves it, with its content pinned.
go_version=1.26.8
go_sha256=30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7

# ensure_go MINIMUM: put a go command on PATH that is new enough: the one there, one that can fetch its own
# toolchain, the distribution's, or a pinned one.
ensure_go() {
    local minimum=$1
    PATH=$PATH:/usr/local/go/bin
    go_at_least "$minimum" && return
    if go_in_apt "$minimum"; then
        need_apt golang-go
    else
        need_apt ca-certificates curl unzip
        [[ -x $cache/go/$go_version/bin/go ]] || step "install Go $go_version" install_go
        PATH=$cache/go/$go_version/bin:$PATH
    fi
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
    local work module=golang.org/toolchain version=v0.0.1-go$go_version.linux-amd64
    mkdir -p "$cache/go"
    work=$(mktemp -d "$cache/go/.new-XXXXXX")
    curl -fsSL "https://proxy.golang.org/$module/@v/$version.zip" -o "$work/go.zip"
    sha256sum -c <<<"$go_sha256  $work/go.zip"
    unzip -q "$work/go.zip" -d "$work"
    mv -T "$work/$module@$version" "$cache/go/$go_version"
    rm -rf "$work"
}

# The version of DuckDB that the tests ask; PyPI serves it for the Pythons of all current distributions.
duckdb_version=2.0.1

# ensure_duckdb: put a Python that has DuckDB into PODWITNESS_DUCKDB.
ensure_duckdb() {
    local venv=$cache/duckdb/$duckdb_version
    need_apt python3-venv
    [[ -x $venv/bin/python ]] || step "install DuckDB $duckdb_version" install_duckdb "$venv"
    export PODWITNESS_DUCKDB=$venv/bin/python
}

# It is there when it is whole: a virtual environment cannot be moved into place.
install_duckdb() {
    rm -rf "$1.new"
    python3 -m venv "$1.new"
    "$1.new/bin/pip" install --quiet --disable-pip-version-check "duckdb==$duckdb_version"
    mv -T "$1.new" "$1"
}

# The S3 server that the tests' recorders speak to, from the Go module proxy. It is static, for an image that holds
# nothing else.
versitygw_version=v1.8.0

# ensure_versitygw: build it, unless it is there, and put it into PODWITNESS_VERSITYGW.
ensure_versitygw() {
    local built
    need_apt curl
    built=$(cached versitygw "=$versitygw_version" "=$(go env GOVERSION)" "=$(declare -f build_versitygw)" \
        -- build_versitygw)
    export PODWITNESS_VERSITYGW=$built/versitygw
}

build_versitygw() {
    # shellcheck disable=SC2154 # out: cache.sh
    CGO_ENABLED=0 GOBIN=$out go install -trimpath -ldflags "-s -w" \
        "github.com/versity/versitygw/cmd/versitygw@$versitygw_version"
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
    local work from=https://static.rust-lang.org/rustup/dist/x86_64-unknown-linux-gnu/rustup-init
    work=$(mktemp -d)
    curl --proto '=https' --tlsv1.2 -fsSL "$from" -o "$work/rustup-init"
    (cd "$work" && sha256sum -c <<<"$(curl --proto '=https' --tlsv1.2 -fsSL "$from.sha256" | cut -c1-64)  rustup-init")
    chmod +x "$work/rustup-init"
    "$work/rustup-init" -y --no-modify-path --profile minimal --default-toolchain none
    rm -rf "$work"
}
