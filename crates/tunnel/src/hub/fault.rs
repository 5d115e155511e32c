//! The end of a device that can carry no packets any more, for whoever wants to open another.

use std::{fmt::Display, sync::Arc};

use tokio::sync::watch;

/// Tells of the first fault. Clones tell of the same.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<watch::Sender<Option<String>>>);

impl Fault {
    pub(super) fn report(&self, what: &str, error: impl Display) {
        self.0.send_if_modified(|fault| {
            let first = fault.is_none();
            if first {
                *fault = Some(format!("{what}: {error}"));
            }
            first
        });
    }

    /// Waits for the first fault; what it was.
    pub(super) async fn happened(&self) -> String {
        let mut seen = self.0.subscribe();
        // The sender lives as long as `self`.
        match seen.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_fault_is_told_to_all_who_ask_later_too() {
        let fault = Fault::default();
        let waiting = tokio::spawn({
            let fault = fault.clone();
            async move { fault.happened().await }
        });
        fault.report("reading", "gone");
        fault.report("writing", "late");
        assert_eq!(waiting.await.unwrap(), "reading: gone");
        assert_eq!(fault.happened().await, "reading: gone");
    }
}
