//! How much of this container's memory recordings may take.

use std::path::Path;

use podwitness_runtime::memory::limit;

/// More does not help: what exceeds it goes to the spool.
const MOST: u64 = 64 << 20;
/// Connections and copies on the way take the rest of the container's memory.
const PART: u64 = 4;

/// Bytes that recordings may take in a container whose cgroups are mounted at `cgroups`, such as `/sys/fs/cgroup`.
#[must_use]
pub fn for_recordings(cgroups: &Path) -> u64 {
    limit(cgroups).map_or(MOST, |limit| MOST.min(limit / PART))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with(file: &str, text: &str) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        for_recordings(dir.path())
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
