//! Tells the control plane what this replica takes, so that it is in the status of its `Recorder`.

use std::time::Duration;

use podwitness_agent::Link;
use podwitness_core::control::{Notice, Taking};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

/// Least time between two words; the control plane takes eight at once, and then one a minute.
const PAUSE: Duration = Duration::from_secs(15);
/// When the same is said again: a word may be lost, and a control plane that was restarted has forgotten it.
const AGAIN: Duration = Duration::from_secs(300);

/// Says what is taken whenever there is a connection: at once, when that changes, and now and then.
pub async fn report(
    mut link: watch::Receiver<Link>,
    mut states: watch::Receiver<Taking>,
    notices: mpsc::Sender<Notice>,
) {
    while link.wait_for(|link| *link == Link::Following).await.is_ok() {
        let taking = *states.borrow_and_update();
        if notices.send(Notice::Recorder(taking)).await.is_err() {
            return;
        }
        sleep(PAUSE).await;
        let news = async {
            tokio::select! {
                changed = states.changed() => changed.is_ok(),
                lost = link.wait_for(|link| *link != Link::Following) => lost.is_ok(),
            }
        };
        // Both live as long as the program.
        if !timeout(AGAIN, news).await.unwrap_or(true) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_state_is_told_at_each_connection_at_each_change_and_again() {
        let (link, states) = (watch::Sender::new(Link::Offline), watch::Sender::new(Taking::Accepting));
        let (give, mut told) = mpsc::channel(1);
        tokio::spawn(report(link.subscribe(), states.subscribe(), give));
        let said = |taking| Some(Notice::Recorder(taking));
        assert!(timeout(AGAIN * 2, told.recv()).await.is_err(), "nobody listens yet");
        link.send_replace(Link::Following);
        assert_eq!(told.recv().await, said(Taking::Accepting));
        let begun = Instant::now();
        // The last word counts.
        states.send_replace(Taking::Refusing);
        states.send_replace(Taking::Degraded);
        assert_eq!(told.recv().await, said(Taking::Degraded));
        let soon = Duration::from_secs(1);
        assert!((PAUSE..PAUSE + soon).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert_eq!(told.recv().await, said(Taking::Degraded));
        assert!(
            (PAUSE + AGAIN..AGAIN + PAUSE * 2 + soon).contains(&begun.elapsed()),
            "{:?}",
            begun.elapsed()
        );
        link.send_replace(Link::Offline);
        states.send_replace(Taking::Refusing);
        assert!(timeout(AGAIN * 2, told.recv()).await.is_err());
        link.send_replace(Link::Following);
        assert_eq!(told.recv().await, said(Taking::Refusing));
    }
}
