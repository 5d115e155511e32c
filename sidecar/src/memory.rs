//! How much of this container's memory recordings may take, and connections: a quarter each. The rest is for the program
//! itself, the buffers of its sockets, which the kernel counts to the container, and what freed memory lies in pieces.
//! How many connections there are places for follows from what they may take.

use std::{ops::RangeInclusive, path::Path};

use podwitness_runtime::{memory::limit, quota::QuotaLimits};

/// More does not help: what exceeds it goes to the spool.
const MOST: u64 = 64 << 20;
const PART: u64 = 4;
/// Of connections, where no container limits them.
const UNLIMITED: u64 = 1 << 30;

/// Of what connections may take: one that is idle takes half of it.
const PER_CONNECTION: u64 = 64 << 10;
/// Places for connections, however little or much memory there is.
const PLACES: RangeInclusive<u64> = 256..=8192;

/// Bytes that recordings may take in a container whose cgroups are mounted at `cgroups`, such as `/sys/fs/cgroup`.
#[must_use]
pub fn for_recordings(cgroups: &Path) -> u64 {
    limit(cgroups).map_or(MOST, |limit| MOST.min(limit / PART))
}

/// Bytes that connections and requests may take there; where no limit is known, as many as a large container would give.
#[must_use]
pub fn for_connections(cgroups: &Path) -> u64 {
    limit(cgroups).map_or(UNLIMITED, |limit| limit / PART).min(UNLIMITED)
}

/// Connections of clients at a time, where all of them may take so many bytes. Containers of a pod cannot be told apart by
/// their address, so that one source may have all.
#[must_use]
pub fn places(for_connections: u64) -> QuotaLimits {
    let places = (for_connections / PER_CONNECTION).clamp(*PLACES.start(), *PLACES.end());
    let total = usize::try_from(places).unwrap_or(usize::MAX);
    QuotaLimits { total, per_key: total }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with(file: &str, text: &str) -> u64 {
        both(file, text).0
    }

    /// For recordings, and for connections.
    fn both(file: &str, text: &str) -> (u64, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        (for_recordings(dir.path()), for_connections(dir.path()))
    }

    #[test]
    fn connections_have_a_quarter_of_what_there_is() {
        for (text, expected) in [("67108864\n", 16 << 20), ("1073741824\n", 256 << 20), ("max\n", UNLIMITED)]
        {
            assert_eq!(both("memory.max", text).1, expected, "{text}");
        }
    }

    #[test]
    fn places_for_connections_grow_with_memory_within_bounds() {
        for (megabytes, expected) in [(0, 256), (16, 256), (32, 512), (64, 1024), (256, 4096), (1024, 8192)] {
            let QuotaLimits { total, per_key } = places(megabytes << 20);
            assert_eq!((total, per_key), (expected, expected), "{megabytes} MiB");
        }
    }

    #[test]
    fn a_small_container_leaves_recordings_a_quarter() {
        assert_eq!(with("memory.max", "67108864\n"), 16 << 20);
        assert_eq!(with("memory/memory.limit_in_bytes", "134217728\n"), 32 << 20);
    }

    #[test]
    fn a_large_one_or_none_leaves_them_what_helps() {
        assert_eq!(with("memory.max", "max\n"), 64 << 20);
        assert_eq!(with("memory.max", "1073741824\n"), 64 << 20);
        assert_eq!(with("memory/memory.limit_in_bytes", "9223372036854771712\n"), 64 << 20);
        assert_eq!(with("elsewhere", "1\n"), 64 << 20);
    }
}
