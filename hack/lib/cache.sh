# shellcheck shell=bash
# What takes long to make is kept by content: the key is a hash over everything it is made from, so a changed input
# makes a new entry, an unchanged one is found again, and two clones share.
: "${cache:?common.sh comes first}"

# cached NAME KEY… -- COMMAND…: print the folder that COMMAND filled, running it first if there is none for these keys.
# A KEY is a file, a folder, or =TEXT. COMMAND finds the (empty) folder to fill in $out. Only a whole result is kept:
# it is renamed into place, under a lock that other clones wait for.
cached() {
    local name=$1 keys=() out lock
    shift
    while [[ $1 != -- ]]; do
        keys+=("$1")
        shift
    done
    shift
    out=$cache/$name/$(content_key "${keys[@]}")
    if [[ ! -d $out ]]; then
        mkdir -p "$cache/$name"
        exec {lock}>"$out.lock"
        flock -n "$lock" || { say "· waiting for another build of $name" && flock "$lock"; }
        [[ -d $out ]] || build_entry "$name" "$out" "$lock" "$@" >&2
        exec {lock}>&-
    fi
    touch "$out"
    printf '%s\n' "$out"
}

build_entry() {
    local name=$1 final=$2 lock=$3 out
    shift 3
    out=$final.new
    rm -rf "$out"
    mkdir -p "$out"
    export out
    step "build $name" run_unlocked "$lock" "$@"
    mv -T "$out" "$final"
    forget_old_entries "$cache/$name" 5
}

# A program that the build leaves running must not hold the lock.
run_unlocked() {
    local lock=$1
    shift
    exec {lock}>&-
    "$@"
}

# forget_old_entries FOLDER COUNT: that many stay, those used last.
forget_old_entries() {
    find "$1" -mindepth 1 -maxdepth 1 -type d ! -name '*.*' -printf '%T@ %p\n' | sort -rn | tail -n +$(($2 + 1)) | cut -d ' ' -f 2- |
        while read -r entry; do
            rm -rf "$entry" "$entry.lock"
        done
}

content_key() {
    local key
    for key in "$@"; do
        case $key in
        =*) printf 'text %s\n' "$key" ;;
        *) file_sums "$key" ;;
        esac
    done | sha256sum | cut -c1-24
}

# Names relative to what was given, modes, link targets and contents: where the clone lies does not count.
file_sums() {
    if [[ -d $1 ]]; then
        (cd "$1" && find . \( -type f -printf '%P %m\n' -o -type l -printf '%P -> %l\n' \) | LC_ALL=C sort &&
            find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
    else
        [[ -f $1 ]] || die "cache key $1 does not exist"
        printf '%s ' "${1##*/}"
        sha256sum <"$1"
    fi
}
