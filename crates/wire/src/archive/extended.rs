//! Headers for what does not fit into a header block: long names, and sizes from 8 GiB on.

use super::{
    MAX_EXTENDED, MAX_NAME, Member,
    header::{Header, Which, text},
};

/// An extended header, and what the ones before it say of the next member.
#[derive(Debug, Default)]
pub(super) struct Extended {
    which: Option<Which>,
    held: Vec<u8>,
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Extended {
    /// One begins; `None` where it is longer than what is held.
    pub(super) fn begin(&mut self, which: Which, size: u64) -> Option<()> {
        if size == 0 || size > MAX_EXTENDED as u64 {
            return None;
        }
        self.which = Some(which);
        Some(())
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// It is whole; `None` where it cannot be read.
    pub(super) fn finish(&mut self) -> Option<()> {
        let held = std::mem::take(&mut self.held);
        match self.which.take()? {
            Which::LongName => self.name = Some(lossy(text(&held))),
            Which::LongLink => self.link = Some(lossy(text(&held))),
            Which::Global => records(&held, |_, _| Some(()))?,
            Which::Next => records(&held, |key, value| {
                match key {
                    b"path" => self.name = Some(lossy(value)),
                    b"linkpath" => self.link = Some(lossy(value)),
                    b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                    _ => {}
                }
                Some(())
            })?,
        }
        Some(())
    }

    /// The member of a header, with what the extended ones say. They are for this one only.
    pub(super) fn apply(&mut self, header: &Header<'_>, has_content: bool, is_link: bool) -> Member {
        let before = std::mem::take(self);
        let short = || {
            let slash: &[u8] = if header.prefix.is_empty() { b"" } else { b"/" };
            lossy(&[header.prefix, slash, header.name].concat())
        };
        Member {
            name: before.name.unwrap_or_else(short),
            link: if is_link { before.link.unwrap_or_else(|| lossy(header.link)) } else { String::new() },
            size: if has_content { before.size.unwrap_or(header.size) } else { 0 },
        }
    }
}

/// Shows the records `<length> <key>=<value>\n` of a pax header; `None` at the first that is none.
fn records(mut bytes: &[u8], mut see: impl FnMut(&[u8], &[u8]) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let len: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        see(record.get(..equals)?, record.get(equals + 1..)?)?;
        bytes = bytes.get(len..)?;
    }
    Some(())
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name.get(..MAX_NAME).unwrap_or(name)).into_owned()
}
