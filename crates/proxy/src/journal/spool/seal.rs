//! What is kept of a spool where nothing but the sidecar comes: the key under which spooled lines are sealed, and how far
//! each recording in the spool reaches.
//!
//! Both lie in a volume in memory, so that they outlive the process and not the node's next start; the spool lies on the
//! node's disk. A spool from before that start is taken as it is found.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{hmac, rand};
use podwitness_wire::spool::{self, Block, Mac};
use thiserror::Error;

/// File of the key.
const KEY: &str = "spool.key";
/// File of what each recording reaches.
const HEADS: &str = "spool.heads";
/// Bytes of one entry there: `length of name, name, 1 where sealed, begin, end`.
const ENTRY: usize = 64;
/// Longest name of a recording; ids of sessions have 26 bytes.
const MAX_NAME: usize = 40;
/// Cap on entries, and so on recordings in a spool. Above it recordings wait in memory alone.
const MAX_ENTRIES: usize = 16_384;

/// The seal of a spool cannot be had. No variant holds a key.
#[derive(Debug, Error)]
pub enum SealError {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write {0}; is the volume podwitness-state mounted there?")]
    Write(PathBuf, #[source] io::Error),
    /// No key can be drawn.
    #[error("cannot draw a key for the spool")]
    Key,
}

/// Seals the spool of one pod.
pub struct Seals {
    key: hmac::Key,
    heads: File,
    /// Entries that are taken.
    taken: Mutex<Vec<bool>>,
    /// What an earlier process of this key had put into the spool; `None` where there was none.
    left: Mutex<Option<HashMap<String, Head>>>,
}

/// What an earlier process had put into the spool of one recording.
#[derive(Debug)]
pub(super) struct Head {
    entry: usize,
    /// Whether its lines are sealed; else they were found in the spool before there was this key.
    pub(super) sealed: bool,
    /// Places in the journal.
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// The seal of one recording in the spool. It gives its entry back when told that the recording is done with.
pub(super) struct Seal {
    seals: Arc<Seals>,
    session: String,
    entry: usize,
    sealed: bool,
    reach: Mutex<(u64, u64)>,
}

impl Seals {
    /// The seal that an earlier process kept in `dir`, else a new one.
    ///
    /// # Errors
    /// Where the files can neither be read nor written.
    pub fn load_or_create(dir: &Path) -> Result<Self, SealError> {
        let (key_file, heads_file) = (dir.join(KEY), dir.join(HEADS));
        let found = match fs::read(&key_file) {
            Ok(bytes) => <[u8; 32]>::try_from(bytes).ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(SealError::Read(key_file, error)),
        };
        let (bytes, fresh) = match found {
            Some(bytes) => (bytes, false),
            None => (create(&key_file, &heads_file)?, true),
        };
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(fresh)
            .mode(0o600)
            .open(&heads_file);
        let heads = open.map_err(|error| SealError::Write(heads_file.clone(), error))?;
        let (taken, left) = read_heads(&heads).map_err(|error| SealError::Read(heads_file, error))?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            heads,
            taken: Mutex::new(taken),
            left: Mutex::new((!fresh).then_some(left)),
        })
    }

    /// What an earlier process had put into the spool, to be taken once. `None` where this key is new, so that nothing is
    /// known of the spool.
    pub(super) fn left(&self) -> Option<HashMap<String, Head>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A seal for a recording that is new to the spool, or was there before the key.
    pub(super) fn seal(self: &Arc<Self>, session: &str, sealed: bool) -> io::Result<Seal> {
        if session.len() > MAX_NAME {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the name of the recording is too long"));
        }
        let entry = {
            let mut taken = self.taken();
            let free = taken.iter().position(|taken| !taken);
            let entry = free.unwrap_or(taken.len());
            if entry >= MAX_ENTRIES {
                return Err(io::Error::new(ErrorKind::StorageFull, "too many recordings are in the spool"));
            }
            match taken.get_mut(entry) {
                Some(taken) => *taken = true,
                None => taken.push(true),
            }
            entry
        };
        let seal = Seal {
            seals: Arc::clone(self),
            session: session.to_owned(),
            entry,
            sealed,
            reach: Mutex::default(),
        };
        seal.put(0, 0)?;
        Ok(seal)
    }

    /// The seal of a recording that an earlier process had put into the spool.
    pub(super) fn resume(self: &Arc<Self>, session: &str, head: &Head) -> Seal {
        Seal {
            seals: Arc::clone(self),
            session: session.to_owned(),
            entry: head.entry,
            sealed: head.sealed,
            reach: Mutex::new((head.begin, head.end)),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Vec<bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, entry: usize, bytes: &[u8; ENTRY]) -> io::Result<()> {
        self.heads.write_all_at(bytes, (entry * ENTRY) as u64)
    }
}

impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seals").finish_non_exhaustive()
    }
}

impl Seal {
    /// Name of the recording.
    pub(super) fn session(&self) -> &str {
        &self.session
    }

    /// Whether lines are sealed.
    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The MAC of the lines that stand at a place of the journal, behind the block with that MAC.
    pub(super) fn mac(&self, place: u64, before: &Mac, lines: &[u8]) -> Mac {
        let mut context = self.begin(b"lines\0");
        context.update(&place.to_be_bytes());
        context.update(before);
        context.update(lines);
        finish(context)
    }

    /// The MAC of what has to be known of the recording.
    pub(super) fn mac_of_waybill(&self, waybill: &[u8]) -> Mac {
        let mut context = self.begin(b"waybill\0");
        context.update(waybill);
        finish(context)
    }

    /// Whether lines from a place on are what was put there, by their part of the index.
    pub(super) fn holds(&self, place: u64, index: &[u8], lines: &[u8]) -> bool {
        let Some((mut before, blocks)) = spool::blocks(index) else { return false };
        let (mut place, mut rest) = (place, lines);
        for Block { len, mac } in blocks {
            let Some((block, behind)) = rest.split_at_checked(len as usize) else { return false };
            if aws_lc_rs::constant_time::verify_slices_are_equal(&self.mac(place, &before, block), &mac)
                .is_err()
            {
                return false;
            }
            (before, rest, place) = (mac, behind, place + u64::from(len));
        }
        rest.is_empty()
    }

    /// The spool holds lines up to there.
    pub(super) fn extend(&self, to: u64) -> io::Result<()> {
        let mut reach = self.reach();
        reach.1 = to;
        self.put(reach.0, to)
    }

    /// The spool goes on there, if it holds nothing.
    pub(super) fn start(&self, at: u64) -> io::Result<()> {
        let mut reach = self.reach();
        if reach.0 == reach.1 {
            *reach = (at, at);
        }
        self.put(reach.0, reach.1)
    }

    /// The spool holds nothing before there any more. Said before it is removed.
    pub(super) fn release(&self, to: u64) {
        let mut reach = self.reach();
        reach.0 = to.min(reach.1).max(reach.0);
        if let Err(error) = self.put(reach.0, reach.1) {
            tracing::warn!(%error, session = self.session, "cannot note what is released from the spool");
        }
    }

    /// The recording is done with, and its folder gone.
    pub(super) fn free(&self) {
        if let Err(error) = self.seals.put(self.entry, &[0; ENTRY]) {
            tracing::warn!(%error, session = self.session, "cannot note that a spool is done with");
            return;
        }
        if let Some(taken) = self.seals.taken().get_mut(self.entry) {
            *taken = false;
        }
    }

    fn begin(&self, kind: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.seals.key);
        context.update(kind);
        context.update(&(self.session.len() as u64).to_be_bytes());
        context.update(self.session.as_bytes());
        context
    }

    fn reach(&self) -> MutexGuard<'_, (u64, u64)> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, begin: u64, end: u64) -> io::Result<()> {
        self.seals.put(self.entry, &entry(&self.session, self.sealed, begin, end))
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal")
            .field("session", &self.session)
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}

/// A new key. What was kept beside an earlier one is of no use.
fn create(path: &Path, heads: &Path) -> Result<[u8; 32], SealError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| SealError::Key)?;
    let write = || {
        let beside = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        match fs::remove_file(heads) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(beside, path)
    };
    write().map_err(|error| SealError::Write(path.to_owned(), error))?;
    Ok(bytes)
}

fn finish(context: hmac::Context) -> Mac {
    let mut mac = [0; 32];
    for (to, from) in mac.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    mac
}

fn entry(session: &str, sealed: bool, begin: u64, end: u64) -> [u8; ENTRY] {
    let mut name = [0; MAX_NAME];
    for (to, from) in name.iter_mut().zip(session.bytes()) {
        *to = from;
    }
    let mut entry = [0; ENTRY];
    let len = [u8::try_from(session.len()).unwrap_or_default()];
    let parts: [&[u8]; 5] = [&len, &name, &[u8::from(sealed)], &begin.to_be_bytes(), &end.to_be_bytes()];
    for (to, from) in entry.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    entry
}

/// `None` for an entry that is free.
fn read_entry(entry: &[u8]) -> Option<(String, bool, u64, u64)> {
    let (len, rest) = entry.split_first()?;
    let (name, rest) = rest.split_at_checked(MAX_NAME)?;
    let (sealed, rest) = rest.split_first()?;
    let (begin, rest) = rest.split_first_chunk()?;
    let (end, _) = rest.split_first_chunk()?;
    let name = name.get(..usize::from(*len)).filter(|name| !name.is_empty())?;
    let name = String::from_utf8(name.to_vec()).ok()?;
    Some((name, *sealed == 1, u64::from_be_bytes(*begin), u64::from_be_bytes(*end)))
}

/// Which entries are taken, and what they say.
fn read_heads(file: &File) -> io::Result<(Vec<bool>, HashMap<String, Head>)> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(MAX_ENTRIES * ENTRY);
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    let (mut taken, mut heads) = (Vec::new(), HashMap::new());
    for (number, bytes) in bytes.chunks(ENTRY).enumerate() {
        let found = read_entry(bytes);
        taken.push(found.is_some());
        if let Some((name, sealed, begin, end)) = found {
            heads.insert(name, Head { entry: number, sealed, begin, end });
        }
    }
    Ok((taken, heads))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_next_process_finds_key_and_heads_again() {
        let dir = tempfile::tempdir().unwrap();
        let seals = Arc::new(Seals::load_or_create(dir.path()).unwrap());
        assert!(seals.left().is_none(), "nothing is known of a spool from before the key");
        let [one, two, three] = ["one", "two", "three"].map(|name| seals.seal(name, true).unwrap());
        one.start(5).unwrap();
        one.extend(90).unwrap();
        one.release(40);
        two.free();
        let mac = three.mac(7, &[1; 32], b"lines");
        let again = Arc::new(Seals::load_or_create(dir.path()).unwrap());
        let left = again.left().unwrap();
        assert_eq!((left["one"].begin, left["one"].end, left["one"].sealed), (40, 90, true));
        assert_eq!(left.len(), 2);
        let three = again.resume("three", &left["three"]);
        assert_eq!(three.mac(7, &[1; 32], b"lines"), mac);
        let next = again.seal("next", false).unwrap();
        assert_eq!((next.entry, three.entry), (1, 2), "the entry that was given back");
        let mode = |file| fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(KEY), mode(HEADS)), (0o600, 0o600));
    }

    #[test]
    fn a_damaged_key_is_replaced_and_its_heads_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let seals = Arc::new(Seals::load_or_create(dir.path()).unwrap());
        seals.seal("one", true).unwrap().extend(9).unwrap();
        fs::write(dir.path().join(KEY), "half").unwrap();
        let again = Seals::load_or_create(dir.path()).unwrap();
        assert!(again.left().is_none() && again.taken().is_empty());
    }

    #[test]
    fn a_mac_is_of_one_place_one_recording_and_what_came_before() {
        let dir = tempfile::tempdir().unwrap();
        let seals = Arc::new(Seals::load_or_create(dir.path()).unwrap());
        let [one, two] = ["one", "two"].map(|name| seals.seal(name, true).unwrap());
        let macs = [
            one.mac(0, &[0; 32], b"a"),
            two.mac(0, &[0; 32], b"a"),
            one.mac(1, &[0; 32], b"a"),
            one.mac(0, &[1; 32], b"a"),
            one.mac(0, &[0; 32], b"b"),
            one.mac_of_waybill(b"a"),
        ];
        for (n, mac) in macs.iter().enumerate() {
            assert!(!macs[..n].contains(mac));
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let seals = Arc::new(Seals::load_or_create(dir.path()).unwrap());
        let seal = seals.seal("one", true).unwrap();
        assert_eq!(format!("{seals:?}"), "Seals { .. }");
        assert_eq!(format!("{seal:?}"), "Seal { session: \"one\", sealed: true, .. }");
    }
}
