//! What this process may do: nothing but `CAP_NET_ADMIN`, and that on one thread.
//!
//! Capabilities are per thread (capabilities(7)), and a new thread has those of the one that makes it. The order is
//! therefore: [`confine`] first, then the thread that calls [`raise`], then [`renounce`], then every other thread.

use std::io;

use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
        set_no_new_privs,
    },
};
use thiserror::Error;

/// Why the process cannot have the privileges that it should, or not lose the others.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The capability is not there.
    #[error(
        "CAP_NET_ADMIN is not permitted to this process: the container needs capabilities.add [NET_ADMIN] and the \
         binary its file capability cap_net_admin+p"
    )]
    Missing,
    /// Capabilities cannot be read or changed.
    #[error("cannot {0}")]
    Change(&'static str, #[source] io::Error),
}

/// For the whole process: no exec gains anything, no other process of the same user reads our memory.
///
/// # Errors
/// Where the kernel refuses.
pub fn confine() -> Result<(), PrivilegeError> {
    set_no_new_privs(true).map_err(change("set no_new_privs"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(change("make the process undumpable"))?;
    clear_ambient_capability_set().map_err(change("clear the ambient capabilities"))
}

/// For the calling thread: `CAP_NET_ADMIN` effective, nothing else permitted.
///
/// # Errors
/// Where the capability is not permitted.
pub fn raise() -> Result<(), PrivilegeError> {
    let now = capabilities(None).map_err(change("read the capabilities"))?;
    if !now.permitted.contains(CapabilitySet::NET_ADMIN) {
        return Err(PrivilegeError::Missing);
    }
    set(CapabilitySet::NET_ADMIN).map_err(change("raise CAP_NET_ADMIN"))
}

/// For the calling thread and those that it will make: no capability at all.
///
/// # Errors
/// Where the kernel refuses.
pub fn renounce() -> Result<(), PrivilegeError> {
    set(CapabilitySet::empty()).map_err(change("give up capabilities"))
}

fn set(capabilities: CapabilitySet) -> rustix::io::Result<()> {
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: capabilities, permitted: capabilities, inheritable })
}

fn change(what: &'static str) -> impl Fn(rustix::io::Errno) -> PrivilegeError {
    move |errno| PrivilegeError::Change(what, errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn capabilities_end_where_they_are_renounced_and_stay_where_they_were_raised() {
        // Each thread has its own, so that the test's other threads notice nothing.
        std::thread::scope(|scope| {
            let renounced = scope.spawn(|| {
                let raised = std::thread::spawn(|| {
                    raise().unwrap();
                    capabilities(None).unwrap()
                });
                let raised = raised.join().unwrap();
                renounce().unwrap();
                assert!(matches!(raise(), Err(PrivilegeError::Missing)));
                (raised, capabilities(None).unwrap())
            });
            let (raised, renounced) = renounced.join().unwrap();
            assert_eq!(raised.permitted, CapabilitySet::NET_ADMIN);
            assert_eq!(raised.effective, CapabilitySet::NET_ADMIN);
            assert!(renounced.permitted.is_empty() && renounced.effective.is_empty());
        });
    }
}
