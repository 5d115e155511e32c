//! Descriptors that the process may open.
//!
//! A container may be started with a soft limit of 1024 for the sake of programs that use `select(2)`; ours do not, and
//! their caps on connections mean something only below the limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More are of no use, and some kernels make a process pay for the table.
const MOST: u64 = 65_536;

/// Raises the soft limit as far as the hard one allows. Gives what it is then; `None` means that there is none.
pub fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MOST).min(MOST);
    if current.is_none_or(|current| current >= wanted) {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => Some(wanted),
        Err(error) => {
            tracing::warn!(%error, limit = current, "cannot raise the limit of open descriptors");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let raised = raise();
        assert!(raised.is_none_or(|raised| raised >= maximum.unwrap_or(MOST).min(MOST)), "{raised:?}");
        assert_eq!(raise(), raised);
    }
}
