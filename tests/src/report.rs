//! What is left of a test that failed: twenty lines for who runs it, and everything else in a file.

use std::{
    env,
    error::Error,
    fmt,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// Folder of the reports; hack/test names one.
const FOLDER: &str = "PODWITNESS_E2E_REPORTS";
/// File in it of how long which test took: seconds, its begin in seconds since the epoch, its name.
const TIMES: &str = "times";
/// Folder in it of what tests show also where they pass, a file each.
const SHOWN: &str = "shown";
/// Most lines of an error that are printed.
const LINES: usize = 20;
/// Most bytes of each of them.
const WIDTH: usize = 400;

/// An error that is short enough to be printed, and names the report.
#[derive(Debug)]
struct Reported {
    summary: String,
    report: PathBuf,
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nmore in {}", self.summary, self.report.display())
    }
}

impl Error for Reported {}

/// Adds sections to the report of the test that runs on this thread.
#[derive(Debug)]
pub struct Report(PathBuf);

/// Notes how long the test on this thread has run since then, and when it began.
pub(crate) fn took(since: Instant) {
    let (seconds, ago) = (since.elapsed().as_secs_f64(), SystemTime::now() - since.elapsed());
    let began = ago.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // What cannot be noted is missing in a table.
    let _ = append(&folder().join(TIMES), &format!("{seconds:.1}\t{began}\t{}\n", name()));
}

/// Shows something of the test on this thread, also where it passes: the runner keeps what a test prints to itself, and
/// hack/test prints the files of this folder at its end.
pub fn show(title: &str, text: &str) {
    let text = format!("{title}\n{text}\n");
    println!("{text}");
    let file = folder().join(SHOWN).join(format!("{}.txt", name().replace("::", "-")));
    if let Err(error) = append(&file, &text) {
        println!("it is not in {}: {error}", file.display());
    }
}

fn folder() -> PathBuf {
    env::var_os(FOLDER).map_or_else(|| env::temp_dir().join("podwitness-e2e"), PathBuf::from)
}

/// libtest names a thread after its test.
fn name() -> String {
    thread::current().name().unwrap_or("unnamed").to_owned()
}

impl Report {
    /// That of this test; it is empty where the test has none yet.
    #[must_use]
    pub fn of_this_test() -> Self {
        Self(folder().join(format!("{}.txt", name().replace("::", "-"))))
    }

    /// Adds what was said about something.
    pub fn add(&self, title: &str, text: &str) {
        if let Err(error) = append(&self.0, &format!("--- {title}\n{text}\n")) {
            println!("no report in {}: {error}", self.0.display());
        }
    }

    /// The error as it is printed; what is longer stands in the report as it is. An error that is a summary already stays
    /// as it is.
    #[must_use]
    pub fn summary(&self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Reported>() {
            return error;
        }
        let whole = format!("{error:?}");
        self.add("the error", &whole);
        Reported { summary: shortened(&whole), report: self.0.clone() }.into()
    }
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    File::options().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

fn shortened(whole: &str) -> String {
    let lines = whole.lines().take(LINES).map(|line| match line.get(..line.floor_char_boundary(WIDTH)) {
        Some(begin) if begin.len() < line.len() => format!("{begin} …"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_has_few_short_lines() {
        let whole = format!("{}\n{}", "ü".repeat(WIDTH), "line\n".repeat(3 * LINES));
        let short = shortened(&whole);
        assert!(short.lines().count() == LINES);
        assert!(short.lines().all(|line| line.len() <= WIDTH + " …".len()));
        assert!(shortened("one\ntwo") == "one\ntwo");
    }

    #[test]
    fn an_error_is_summarised_once() {
        let folder = tempfile::tempdir().unwrap();
        let report = Report(folder.path().join("test.txt"));
        let summary = report.summary(anyhow::anyhow!("{}", "line\n".repeat(3 * LINES)));
        let again = report.summary(summary).to_string();
        assert!(again.lines().count() == LINES + 1 && again.contains("test.txt"), "{again}");
        assert!(std::fs::read_to_string(&report.0).unwrap().matches("line").count() == 3 * LINES);
    }
}
