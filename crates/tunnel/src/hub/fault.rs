//! The end of a hub that can carry no packets any more, for whoever wants to open another.

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

    /// A task whose end, however it comes, is a fault.
    pub(super) fn guard<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + use<F> {
        let ended = Ended { fault: self.clone(), name };
        async move {
            task.await;
            drop(ended);
        }
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

/// Tells of the task's end when it is dropped with it.
struct Ended {
    fault: Fault,
    name: &'static str,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.fault.report("a task has ended", self.name);
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

    #[tokio::test]
    async fn the_end_of_a_guarded_task_is_a_fault_also_if_it_panics() {
        let fault = Fault::default();
        let task = tokio::spawn(fault.guard("carrier", async { panic!("on purpose") }));
        assert!(task.await.is_err());
        assert_eq!(fault.happened().await, "a task has ended: carrier");
    }
}
