//! Names of directories and files.
//!
//! Whatever comes from outside is reduced to `[A-Za-z0-9._-]`, cannot begin with a dot and has a cap; where that
//! changes it, a digest of the original is added, so that different names stay different.

use std::{fmt, net::IpAddr, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};

use super::meta::Owner;

/// Cap on a session id.
pub const MAX_SESSION: usize = 64;
/// Cap on one directory name.
const MAX_COMPONENT: usize = 128;
const DIGEST: usize = 12;

/// First directory below the day for clients that brought no assertion.
pub const UNVERIFIED: &str = "unverified";

/// Name of one part of a session: `SESSION.PART`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PartName {
    session: String,
    part: u32,
}

impl PartName {
    /// A name; `None` where the session id has a character other than `[A-Za-z0-9_-]`, is empty or too long.
    #[must_use]
    pub fn new(session: &str, part: u32) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let fits = !session.is_empty() && session.len() <= MAX_SESSION && session.bytes().all(allowed);
        fits.then(|| Self { session: session.to_owned(), part })
    }

    /// A new session's only part, for clients that name none.
    #[must_use]
    pub fn generate() -> Self {
        Self { session: ulid::Ulid::new().to_string(), part: 0 }
    }

    /// Reads the name of a file with this extension back.
    #[must_use]
    pub fn of_file(file: &str, extension: &str) -> Option<Self> {
        let (session, part) = file.strip_suffix(extension)?.strip_suffix('.')?.split_once('.')?;
        let name = Self::new(session, part.parse().ok()?)?;
        // Only the form that we write: no leading zeros or signs.
        (name.part.to_string() == part).then_some(name)
    }

    /// Id of the session.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Number of the part.
    #[must_use]
    pub const fn part(&self) -> u32 {
        self.part
    }

    /// File of the recording.
    #[must_use]
    pub fn cast(&self) -> String {
        format!("{}.{}.cast", self.session, self.part)
    }

    /// File of the metadata.
    #[must_use]
    pub fn meta(&self) -> String {
        format!("{}.{}.json", self.session, self.part)
    }
}

/// An hour of UTC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hour {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
}

impl Hour {
    /// The hour of a time in Unix seconds.
    #[must_use]
    pub fn of(unix: i64) -> Self {
        let (year, month, day) = civil(unix);
        Self { year, month, day, hour: unix.rem_euclid(86_400) / 3600 }
    }

    /// The directories of its partition, as Hive names them.
    #[must_use]
    pub fn partition(self) -> [String; 2] {
        let Self { year, month, day, hour } = self;
        [format!("date={year:04}-{month:02}-{day:02}"), format!("hour={hour:02}")]
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour } = self;
        write!(f, "{year:04}-{month:02}-{day:02}.{hour:02}")
    }
}

impl FromStr for Hour {
    type Err = NoHour;

    /// Reads what it is displayed as.
    fn from_str(text: &str) -> Result<Self, NoHour> {
        let (date, hour) = text.split_once('.').ok_or(NoHour)?;
        let mut numbers = date.splitn(3, '-').chain([hour]).map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).ok_or(NoHour);
        let read = Self { year: next()?, month: next()?, day: next()?, hour: next()? };
        // Only the form that we write: no other can be a directory.
        if read.to_string() == text { Ok(read) } else { Err(NoHour) }
    }
}

/// The text is no hour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoHour;

/// The directories below the root for a recording of `owner` that began at `now` (Unix seconds, UTC).
#[must_use]
pub fn directory(owner: &Owner, now: i64) -> Vec<String> {
    let (year, month, day) = civil(now);
    let mut components = vec![format!("{year:04}"), format!("{month:02}"), format!("{day:02}")];
    components.extend(self::owner(owner));
    components
}

/// Those of them that are below a day.
#[must_use]
pub fn owner(owner: &Owner) -> Vec<String> {
    match owner {
        Owner::Pod(pod) => [&pod.cluster, &pod.namespace, &pod.pod].map(|text| component(text)).into(),
        Owner::Unverified { address } => vec![UNVERIFIED.to_owned(), address_component(*address)],
    }
}

/// A short digest that tells owners apart: with the session id, the key of a session.
#[must_use]
pub fn owner_digest(owner: &Owner) -> String {
    match owner {
        Owner::Pod(pod) => short_digest(&[pod.cluster.as_bytes(), &[0], pod.uid.as_bytes()].concat()),
        Owner::Unverified { address } => short_digest(address.to_string().as_bytes()),
    }
}

fn address_component(address: IpAddr) -> String {
    component(&address.to_canonical().to_string().replace(':', "-"))
}

fn component(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let safe: String = text.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if safe == text && !text.is_empty() && !text.starts_with('.') && text.len() <= MAX_COMPONENT {
        return safe;
    }
    let kept: String = safe.trim_start_matches('.').chars().take(MAX_COMPONENT - DIGEST - 1).collect();
    format!("{kept}~{}", short_digest(text.as_bytes()))
}

/// Twelve hexadecimal digits of a SHA-256: enough to tell apart what nobody can choose freely.
pub(crate) fn short_digest(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().iter().take(DIGEST / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// Year, month and day of a time in Unix seconds (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(unix: i64) -> (i64, i64, i64) {
    let days = unix.div_euclid(86_400) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::meta::Pod;

    fn pod(cluster: &str, namespace: &str, pod: &str) -> Owner {
        Owner::Pod(Pod {
            cluster: cluster.into(),
            namespace: namespace.into(),
            pod: pod.into(),
            ..Pod::default()
        })
    }

    #[test]
    fn a_recording_lies_under_its_day_and_pod() {
        assert_eq!(
            directory(&pod("c-1", "shop", "till-0"), 1_700_000_000),
            ["2023", "11", "14", "c-1", "shop", "till-0"]
        );
        let address = "fd00::1".parse().unwrap();
        assert_eq!(
            directory(&Owner::Unverified { address }, 0),
            ["1970", "01", "01", "unverified", "fd00--1"]
        );
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (unix, expected) in [
            (-1, (1969, 12, 31)),
            (951_782_399, (2000, 2, 28)),
            (951_782_400, (2000, 2, 29)),
            (1_709_164_800, (2024, 2, 29)),
            (1_735_689_599, (2024, 12, 31)),
            (4_107_542_400, (2100, 3, 1)),
        ] {
            assert_eq!(civil(unix), expected, "{unix}");
        }
    }

    #[test]
    fn hours_are_partitions_and_come_back() {
        let hour = Hour::of(1_700_000_000);
        assert_eq!(hour.partition(), ["date=2023-11-14", "hour=22"]);
        assert_eq!(hour.to_string().parse(), Ok(hour));
        for wrong in
            ["", ".", "2023-11-14", "2023-11-14.1", "2023-+1-14.01", "../..-1-1.1", "2023-11-14-1.01"]
        {
            assert_eq!(wrong.parse::<Hour>(), Err(NoHour), "{wrong}");
        }
    }

    #[test]
    fn no_name_leaves_its_directory() {
        let long = "x".repeat(4000);
        for hostile in
            ["", ".", "..", "../../etc", "/etc/passwd", "a/b", "a\0b", "a\nb", "\u{202e}cast", "-", &long]
        {
            for component in &directory(&pod(hostile, hostile, hostile), 0)[3..] {
                assert!(!component.is_empty() && component.len() <= MAX_COMPONENT, "{hostile:?}");
                assert!(!component.starts_with('.') && !component.contains(['/', '\0']), "{hostile:?}");
                assert!(component.is_ascii() && !component.contains(|c: char| c.is_ascii_control()));
            }
        }
    }

    #[test]
    fn different_names_stay_different() {
        assert_ne!(component("a/b"), component("a_b"));
        assert_ne!(component("a/b"), component("a\\b"));
        assert_ne!(component(&"x".repeat(200)), component(&"x".repeat(201)));
    }

    #[test]
    fn file_names_come_back_and_foreign_ones_are_no_parts() {
        let name = PartName::new("01J_x-9", 3).unwrap();
        assert_eq!(name.cast(), "01J_x-9.3.cast");
        assert_eq!(PartName::of_file("01J_x-9.3.cast", "cast"), Some(name.clone()));
        assert_eq!(PartName::of_file(&name.meta(), "json"), Some(name));
        for foreign in [
            "a.cast",
            "a.1.cast.new",
            ".1.cast",
            "a.01.cast",
            "a.+1.cast",
            "a.-1.cast",
            "a b.1.cast",
            "a..1.cast",
        ] {
            assert_eq!(PartName::of_file(foreign, "cast"), None, "{foreign}");
        }
    }

    #[test]
    fn session_ids_are_plain_words() {
        let long = "x".repeat(MAX_SESSION + 1);
        for hostile in ["", "..", "a/b", "a.b", "a b", "a\0", "ä", &long] {
            assert_eq!(PartName::new(hostile, 0), None, "{hostile:?}");
        }
    }

    #[test]
    fn owners_are_told_apart_by_cluster_and_uid() {
        let of = |cluster: &str, uid: &str| {
            owner_digest(&Owner::Pod(Pod { cluster: cluster.into(), uid: uid.into(), ..Pod::default() }))
        };
        assert_ne!(of("a", "b"), of("a", "c"));
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }
}
