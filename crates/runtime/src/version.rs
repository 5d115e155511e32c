//! The version that a program shows: that of the workspace, and the commit from which its image was made.
//!
//! The commit comes from the environment, where the image sets it (`hack/images`), and not from the build: so a program
//! whose sources did not change stays the same, byte for byte, whichever commit it is built at.

use std::{env, sync::OnceLock};

/// Variable of the image's environment: the commit that last changed what the program is made of.
pub const COMMIT: &str = "PODWITNESS_COMMIT";
/// Longest commit that is shown.
const MAX_COMMIT: usize = 64;

/// The version, such as `0.1.0+4ce04e0d1a2b`; without `+` where no commit is known.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| with_commit(env::var(COMMIT).ok().as_deref()))
}

fn with_commit(commit: Option<&str>) -> String {
    let package = env!("CARGO_PKG_VERSION");
    let is_commit = |text: &&str| {
        !text.is_empty()
            && text.len() <= MAX_COMMIT
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    commit.filter(is_commit).map_or_else(|| package.to_owned(), |commit| format!("{package}+{commit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_commit_where_it_is_known_and_is_one() {
        let package = env!("CARGO_PKG_VERSION");
        for (commit, expected) in [
            (Some("4ce04e0d1a2b"), format!("{package}+4ce04e0d1a2b")),
            (Some("4ce04e0d1a2b-dirty"), format!("{package}+4ce04e0d1a2b-dirty")),
            (Some(""), package.to_owned()),
            (Some("4ce04e0\n"), package.to_owned()),
            (Some("a b"), package.to_owned()),
            (None, package.to_owned()),
        ] {
            assert_eq!(with_commit(commit), expected, "{commit:?}");
        }
        assert_eq!(with_commit(Some(&"a".repeat(65))), package);
    }
}
