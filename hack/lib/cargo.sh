# shellcheck shell=bash
# Builds with cargo. What it makes of other people's crates is kept by content (cache.sh): a fresh clone then builds only
# what is in this repository. Cargo itself decides what of it fits; the rest is built as if it were not there.
: "${root:?common.sh comes first}" "${cache:?}"

# build_tests [OPTION…]: the tests that cargo's options name, and the programs that they start. Always for the whole
# workspace: cargo gives shared dependencies the features of all that it builds together, and would build them again for
# a part.
build_tests() {
    cd "$root" || return
    restore_dependencies dev "$root/Cargo.lock" "$root/target/debug"
    cargo test --locked --workspace --no-run "$@"
}

# The end-to-end suite with the client of kube-rs, and the tests of the kubectl plugin with the plugin.
build_suite() {
    build_tests --test suite --test command "$@"
}

# restore_dependencies NAME LOCK FOLDER [=TEXT…]: fills cargo's build folder, unless there is one. NAME says which kind of
# build, TEXT what else it depends on.
restore_dependencies() {
    local entry
    [[ ! -d $3 ]] || return 0
    entry=$(dependencies_entry "$@")
    [[ -d $entry ]] || return 0
    step "take the dependencies of $1 from the cache" copy_whole "$entry" "$3"
    touch "$entry"
}

# keep_dependencies NAME LOCK FOLDER: for the next clone, unless there are some.
keep_dependencies() {
    local entry
    entry=$(dependencies_entry "$@")
    [[ ! -d $entry ]] || return 0
    mkdir -p "${entry%/*}"
    step "keep the dependencies of $1" keep_whole "$3" "$entry"
    forget_old_entries "${entry%/*}" 2
}

# Manifests of members say features, too; what they change is built anew.
dependencies_entry() {
    printf '%s/dependencies-%s/%s\n' "$cache" "$1" \
        "$(content_key "$root/Cargo.toml" "$2" "$root/rust-toolchain.toml" "=$(cd "$root" && rustc -vV)" "${@:4}")"
}

copy_whole() {
    rm -rf "$2.new"
    mkdir -p "${2%/*}"
    cp -a --reflink=auto "$1" "$2.new"
    mv -T "$2.new" "$2"
}

# Without programs and tests, and without what is built of this repository, whose names are podwitness-*.
keep_whole() {
    local new=$2.new
    rm -rf "$new"
    mkdir -p "$new"
    (
        cd "$1" || return
        find . \( -name incremental -o -name examples -o -name doc -o -name tmp -o -name 'podwitness-*' \) -prune -o \
            \( -path '*/deps/*' \( -name '*podwitness*' -o ! -name '*.*' \) \) -o \
            -type f ! -name .cargo-lock -print0 | xargs -0r cp -a --parents --reflink=auto -t "$new"
    )
    [[ -d $2 ]] || mv -T "$new" "$2"
    rm -rf "$new"
}
