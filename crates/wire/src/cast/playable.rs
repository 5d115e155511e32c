//! A recording as players of asciicast v2 read it.
//!
//! What is stored says more than asciicast v2 does. Players tell codes apart by the first letter, take sizes between 1 and
//! 65,535, and times as plain decimals; a terminal shows line feeds without carriage returns as stairs, and a session
//! without a terminal has line feeds alone. This filter takes the stored bytes in pieces of any length and gives lines
//! that every player reads the same way.

use std::borrow::Cow;

use serde_json::{Map, Value, value::RawValue};

use super::{MAX_HEADER, line::is_whole};

/// Columns and rows where the terminal's size is not known, and where there is no terminal.
const DEFAULT_SIZE: (u64, u64) = (80, 24);
/// Most columns, and most rows: players allocate them at once.
pub const MAX_PLAYABLE_SIDE: u64 = 1000;
/// Longest line that is passed on, in bytes; no stored line is longer.
const MAX_LINE: usize = MAX_HEADER;
/// Latest time that is passed on, in seconds: about 31 years.
const MAX_TIME: f64 = 1e9;

/// The filter, at some place of a recording. It holds one line at most, of 1 MiB.
#[derive(Debug, Default)]
pub struct Playable {
    line: Vec<u8>,
    /// Whether the line is too long, and left out.
    overlong: bool,
    /// What the header says; none before its end.
    form: Option<Form>,
    /// Whether the last character of output was a carriage return.
    returned: bool,
    /// Time of the last line in seconds.
    reached: f64,
}

/// How event lines are to be read.
#[derive(Clone, Copy, Debug)]
struct Form {
    terminal: bool,
    /// Sizes are rows and columns, as the reference client writes them, not columns and rows.
    rows_first: bool,
}

impl Playable {
    /// At the beginning of a recording.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes stored bytes, and appends what plays to `out`: whole lines.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let content = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.overlong |= self.line.len().saturating_add(content.len()) > MAX_LINE;
            if !self.overlong {
                self.line.extend_from_slice(content);
            }
            if content.len() < piece.len() {
                self.end_line(out);
            }
        }
    }

    /// The end of what is stored. A last line without its newline is appended where it is whole.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.end_line(out);
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.overlong) {
            line.clear();
        }
        match self.form {
            None => self.form = Some(header(&line, out)),
            // What is no event line would end a player's reading; the stored bytes have it.
            Some(form) => drop(self.event(form, &line, out)),
        }
        line.clear();
        self.line = line;
    }

    fn event(&mut self, form: Form, line: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (at, code, data): (&RawValue, &RawValue, &RawValue) = serde_json::from_slice(line).ok()?;
        let data = match code.get() {
            "\"o\"" if form.terminal => text(data)?,
            "\"o\"" => self.with_returns(data)?,
            "\"r\"" => size(data, form.rows_first)?,
            // Input and markers, which other writers record.
            "\"i\"" | "\"m\"" => text(data)?,
            _ => return None,
        };
        let at = self.time(at.get())?;
        out.extend_from_slice(format!("[{at},{},{data}]\n", code.get()).as_bytes());
        Some(())
    }

    /// Seconds as digits with at most one point, not before the last line.
    fn time<'a>(&mut self, stated: &'a str) -> Option<Cow<'a, str>> {
        let at: f64 = serde_json::from_str(stated).ok()?;
        let plain = stated.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if plain && (self.reached..=MAX_TIME).contains(&at) {
            self.reached = at;
            return Some(stated.into());
        }
        if at <= MAX_TIME {
            self.reached = self.reached.max(at);
        }
        Some(format!("{:.6}", self.reached).into())
    }

    /// Output with a carriage return before each line feed.
    fn with_returns<'a>(&mut self, data: &'a RawValue) -> Option<Cow<'a, str>> {
        let stated = text(data)?;
        if !stated.contains('\\') {
            self.returned &= stated == "\"\"";
            return Some(stated);
        }
        let output: String = serde_json::from_str(data.get()).ok()?;
        let mut shown = String::with_capacity(output.len().saturating_add(16));
        for character in output.chars() {
            if character == '\n' && !self.returned {
                shown.push('\r');
            }
            shown.push(character);
            self.returned = character == '\r';
        }
        serde_json::to_string(&shown).ok().map(Cow::from)
    }
}

/// A JSON text as it stands; `None` where it is none, or not whole.
fn text(data: &RawValue) -> Option<Cow<'_, str>> {
    let whole = is_whole(data) || serde_json::from_str::<String>(data.get()).is_ok();
    whole.then(|| data.get().into())
}

/// A size within bounds as JSON text; `None` where it is none that a terminal can have.
fn size(data: &RawValue, rows_first: bool) -> Option<Cow<'_, str>> {
    let stated: String = serde_json::from_str(data.get()).ok()?;
    let (first, second) = stated.split_once('x')?;
    let (first, second) = (side(first.parse().ok()?)?, side(second.parse().ok()?)?);
    let (cols, rows) = if rows_first { (second, first) } else { (first, second) };
    Some(format!("\"{cols}x{rows}\"").into())
}

/// Runtimes leave a terminal as it is where either side is 0.
fn side(cells: u64) -> Option<u64> {
    (cells > 0).then(|| cells.min(MAX_PLAYABLE_SIDE))
}

/// Writes a header that plays: as it stands where it does.
fn header(line: &[u8], out: &mut Vec<u8>) -> Form {
    let stated: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    let number = |key: &str| stated.get(key).and_then(Value::as_u64);
    let size = number("width").and_then(side).zip(number("height").and_then(side));
    let ours = stated.get("podwitness").and_then(Value::as_object);
    let form = Form {
        terminal: match ours {
            Some(ours) => ours.get("tty") == Some(&Value::Bool(true)),
            None => size.is_some(),
        },
        rows_first: ours.is_none() && stated.get("kubernetes").is_some_and(Value::is_object),
    };
    let (width, height) = size.unwrap_or(DEFAULT_SIZE);
    let mut header = stated.clone();
    for (key, value) in [("version", 2), ("width", width), ("height", height)] {
        header.insert(key.to_owned(), value.into());
    }
    if header.get("timestamp").is_some_and(|start| !start.is_u64()) {
        header.remove("timestamp");
    }
    if header == stated {
        out.extend_from_slice(line);
    } else {
        out.extend_from_slice(Value::Object(header).to_string().as_bytes());
    }
    out.push(b'\n');
    form
}

#[cfg(test)]
mod tests;
