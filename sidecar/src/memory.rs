//! How much of this container's memory recordings may take, and connections: a quarter each. The rest is for the program
//! itself, the buffers of its sockets, which the kernel counts to the container, and what freed memory lies in pieces.

use std::path::Path;

use podwitness_runtime::memory::limit;

/// More does not help: what exceeds it goes to the spool.
const MOST: u64 = 64 << 20;
const PART: u64 = 4;
/// Of connections, where no container limits them.
const UNLIMITED: u64 = 1 << 30;

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
