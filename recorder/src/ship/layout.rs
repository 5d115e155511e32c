//! Keys of the bucket, below its prefix.

use std::{fmt, path::Path, str::FromStr};

use crate::store::{layout::PartName, walk::Place};

/// What keys of recordings begin with.
pub const SESSIONS: &str = "sessions";
/// Object with the metadata of a part that lasts.
pub const BEGIN: &str = "begin.json";
/// Object that closes a part.
pub const MANIFEST: &str = "manifest.json";
const EXTENSION: &str = ".cast.zst";

/// The directory of a part: where it lies on the volume, and when it began, so that no two uploads ever share one.
#[must_use]
pub fn directory(root: &Path, place: &Place, received: i64) -> String {
    let below = place.directory.strip_prefix(root).unwrap_or(&place.directory);
    let below: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
    format!("{SESSIONS}/{}/{}.{}-{received}", below.join("/"), place.name.session(), place.name.part())
}

/// Reads the last name of such a directory back.
#[must_use]
pub fn part_of(name: &str) -> Option<PartName> {
    let (name, received) = name.rsplit_once('-')?;
    received.parse::<u64>().ok()?;
    PartName::of_file(&format!("{name}.cast"), "cast")
}

/// One segment: which, and which bytes of the recording it holds.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Segment {
    /// Its number, from 0.
    pub number: u32,
    /// Bytes before it.
    pub offset: u64,
    /// Bytes of it, before compression.
    pub length: u32,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, offset, length } = self;
        write!(f, "{number:08}-{offset}-{length}{EXTENSION}")
    }
}

/// The text names no segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoSegment;

impl FromStr for Segment {
    type Err = NoSegment;

    /// Reads what it is displayed as.
    fn from_str(text: &str) -> Result<Self, NoSegment> {
        let mut numbers = text.strip_suffix(EXTENSION).ok_or(NoSegment)?.splitn(3, '-');
        let mut next = || numbers.next().ok_or(NoSegment);
        let (number, offset, length) = (next()?, next()?, next()?);
        let read = Self {
            number: number.parse().map_err(|_| NoSegment)?,
            offset: offset.parse().map_err(|_| NoSegment)?,
            length: length.parse().map_err(|_| NoSegment)?,
        };
        if read.to_string() == text { Ok(read) } else { Err(NoSegment) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_foreign_ones_do_not() {
        let segment = Segment { number: 3, offset: 1 << 40, length: 1 << 20 };
        assert_eq!(segment.to_string(), "00000003-1099511627776-1048576.cast.zst");
        assert_eq!(segment.to_string().parse(), Ok(segment));
        for foreign in ["", "begin.json", "3-0-1.cast.zst", "00000003-0-+1.cast.zst", "00000003-0.cast.zst"] {
            assert_eq!(foreign.parse::<Segment>(), Err(NoSegment), "{foreign}");
        }
    }

    #[test]
    fn a_part_has_a_directory_of_its_own() {
        let place = Place {
            directory: "/data/2026/08/01/c/shop/till".into(),
            name: PartName::new("s-1", 2).unwrap(),
        };
        let directory = directory(Path::new("/data"), &place, 1_700_000_000_123);
        assert_eq!(directory, "sessions/2026/08/01/c/shop/till/s-1.2-1700000000123");
        assert_eq!(part_of("s-1.2-1700000000123"), Some(place.name));
        for foreign in ["s.2", "s.2-", "s.2-x", "s-1", "s.02-1"] {
            assert_eq!(part_of(foreign), None, "{foreign}");
        }
    }
}
