//! What goes wrong, and how everybody learns of it at once.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What the recorder does wrong. Connections that live are affected like those that come.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It says that it takes recordings, and answers each 503.
    Refuse,
    /// It accepts connections, and then neither takes nor says anything.
    Hang,
    /// Everything that it says comes so many milliseconds late.
    Late(u64),
    /// It takes so many bytes more, and is dead.
    DieAt(u64),
    /// Connections break.
    Dead,
    /// Everything that it says is noise.
    Garble,
    /// It takes recordings, and acknowledges them in words that nobody understands.
    Nonsense,
}

/// Who has the word on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speaker {
    /// The real recorder, however disturbed.
    Recorder,
    /// Something that looks like one.
    Impostor,
    /// Nobody.
    Nobody,
}

/// The fault of the moment.
#[derive(Clone, Debug, Default)]
pub struct Faults(watch::Sender<Fault>);

impl Fault {
    /// Who has the word.
    pub const fn speaker(self) -> Speaker {
        match self {
            Self::Refuse | Self::Nonsense => Speaker::Impostor,
            Self::Dead => Speaker::Nobody,
            Self::None | Self::Hang | Self::Late(_) | Self::DieAt(_) | Self::Garble => Speaker::Recorder,
        }
    }
}

impl Faults {
    /// What goes wrong now.
    pub fn now(&self) -> Fault {
        *self.0.borrow()
    }

    /// Lets that go wrong from now on.
    pub fn set(&self, fault: Fault) {
        self.0.send_replace(fault);
    }

    /// Learns of each change.
    pub fn watch(&self) -> watch::Receiver<Fault> {
        self.0.subscribe()
    }

    /// Completes when somebody else than `speaker` has the word.
    pub async fn silenced(&self, speaker: Speaker) {
        // The sender is ours.
        let _ = self.watch().wait_for(|fault| fault.speaker() != speaker).await;
    }

    /// How many of `bytes` that have come may go in; the last one that may kills.
    pub fn admit(&self, bytes: usize) -> usize {
        let mut admitted = bytes;
        self.0.send_if_modified(|fault| {
            let Fault::DieAt(left) = *fault else { return false };
            admitted = bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left.saturating_sub(admitted as u64);
            *fault = if left == 0 { Fault::Dead } else { Fault::DieAt(left) };
            left == 0
        });
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_named_in_json() {
        for (fault, text) in [
            (Fault::None, "\"none\""),
            (Fault::Hang, "\"hang\""),
            (Fault::Late(1500), "{\"late\":1500}"),
            (Fault::DieAt(5), "{\"dieAt\":5}"),
        ] {
            assert_eq!(serde_json::to_string(&fault).unwrap(), text);
            assert_eq!(serde_json::from_str::<Fault>(text).unwrap(), fault);
        }
    }

    #[test]
    fn the_last_byte_kills() {
        let faults = Faults::default();
        assert_eq!(faults.admit(1000), 1000);
        faults.set(Fault::DieAt(10));
        assert_eq!((faults.admit(7), faults.now()), (7, Fault::DieAt(3)));
        assert_eq!((faults.admit(7), faults.now()), (3, Fault::Dead));
    }
}
