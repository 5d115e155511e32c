//! Open connections by source, so that no single source can take all of them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Connections by source. Clones are the same table, which has no more entries than there are connections.
#[derive(Clone, Debug)]
pub struct Connections {
    max: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// An open connection's place, freed when dropped.
#[derive(Debug)]
#[must_use = "dropping it frees the connection's place"]
pub struct Place {
    source: IpAddr,
    connections: Connections,
}

impl Connections {
    /// At most `max` of one source.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, open: Arc::default() }
    }

    /// A place for a connection; `None` where the source has too many.
    pub fn open(&self, source: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_default();
        if *count >= self.max {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Place { source, connections: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_and_no_more() {
        let connections = Connections::new(2);
        let [a, b]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let (first, _second) = (connections.open(a).unwrap(), connections.open(a).unwrap());
        assert!(connections.open(a).is_none());
        let other = connections.open(b);
        assert!(other.is_some());
        drop((first, other));
        assert!(connections.open(a).is_some());
        assert_eq!(connections.open.lock().unwrap().len(), 1);
    }
}
