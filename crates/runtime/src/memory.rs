//! The memory that this container may use.

use std::{fs, path::Path};

/// Where cgroups are mounted.
pub const CGROUPS: &str = "/sys/fs/cgroup";
/// Where the kernel shows the limit, under the mount of cgroups: version 2, then version 1.
const FILES: [&str; 2] = ["memory.max", "memory/memory.limit_in_bytes"];

/// The limit in bytes of a container whose cgroups are mounted at `cgroups`; `None` where there is none or it cannot be
/// read.
#[must_use]
pub fn limit(cgroups: &Path) -> Option<u64> {
    FILES.iter().find_map(|file| fs::read_to_string(cgroups.join(file)).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_in_either_version_of_cgroups() {
        for (file, text, expected) in [
            ("memory.max", "67108864\n", Some(64 << 20)),
            ("memory.max", "max\n", None),
            ("memory/memory.limit_in_bytes", "134217728\n", Some(128 << 20)),
            ("elsewhere", "1\n", None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            assert_eq!(limit(dir.path()), expected, "{file}: {text}");
        }
    }
}
