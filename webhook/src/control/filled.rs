//! Whether every cache has been filled once.
//!
//! A cache wakes only the last of those that wait until it is ready. So one task waits for all caches, and everybody else
//! for that task.

use tokio::{sync::watch, task::JoinSet};

/// Clones are the same.
#[derive(Clone, Debug)]
pub struct Filled(watch::Receiver<bool>);

impl Filled {
    /// Waits in `tasks` until `filling` completes, which is the only one that may wait for these caches. The task then
    /// goes on for ever.
    pub fn after(filling: impl Future<Output = ()> + Send + 'static, tasks: &mut JoinSet<()>) -> Self {
        let (sender, filled) = watch::channel(false);
        tasks.spawn(async move {
            filling.await;
            sender.send_replace(true);
            std::future::pending::<()>().await;
        });
        Self(filled)
    }

    /// Nothing has to be waited for.
    #[cfg(test)]
    pub(crate) fn at_once() -> Self {
        Self(watch::channel(true).1)
    }

    /// Completes when every cache has been filled once.
    pub async fn wait(&self) {
        // An error says that the task is gone, which ends the program elsewhere.
        let _ = self.0.clone().wait_for(|filled| *filled).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::{reflector::store, watcher::Event};
    use tokio::{task::yield_now, time::timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_who_waits_is_told() {
        let (cache, mut writer) = store::<ConfigMap>();
        let mut tasks = JoinSet::new();
        let filling = async move {
            let _ = cache.wait_until_ready().await;
        };
        let filled = Filled::after(filling, &mut tasks);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let filled = filled.clone();
                tokio::spawn(async move { filled.wait().await })
            })
            .collect();
        yield_now().await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        for waiting in waiting {
            timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
        }
        filled.wait().await;
    }
}
