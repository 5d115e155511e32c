//! Configuration from the environment: every mistake is reported at once, and no message repeats a value, which may
//! be a secret.

pub mod parse;

use std::{
    fmt::{self, Write as _},
    process::ExitCode,
};

use thiserror::Error;

/// Exit code of a program whose configuration cannot be used (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Where settings come from.
pub trait Strings {
    /// The value under `name`; `None` where there is none.
    fn get(&self, name: &str) -> Option<String>;
}

/// The process environment. A value that is not UTF-8 reads as absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Env;

impl Strings for Env {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl<F: Fn(&str) -> Option<String>> Strings for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// One setting that is missing or cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Mistake {
    /// The setting is absent or empty.
    #[error("{name} is not set; it should be {expected}")]
    Missing {
        /// Name of the setting.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The setting's value does not parse.
    #[error("{name} should be {expected}")]
    Invalid {
        /// Name of the setting.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// All mistakes of a configuration.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        for mistake in &self.0 {
            f.write_char('\n')?;
            write!(f, "  {mistake}")?;
        }
        Ok(())
    }
}

/// Reports a configuration that cannot be used on standard error and gives the code to exit with.
#[must_use]
pub fn exit_usage(error: &dyn fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(EXIT_USAGE)
}

/// Reads settings and remembers every mistake.
///
/// Each call gives `None` after a mistake; [`Reader::finish`] turns that into all mistakes together:
/// ```
/// use podwitness_runtime::config::{parse, Reader};
/// let env = |name: &str| (name == "PORT").then(|| "80".to_owned());
/// let mut read = Reader::new(&env);
/// let port = read.required("PORT", "a TCP port", parse::from_str::<u16>);
/// let host = read.or("HOST", "a name", "localhost".to_owned(), parse::text);
/// let (port, host) = read.finish(port.zip(host)).expect("no mistake");
/// assert_eq!((port, host.as_str()), (80, "localhost"));
/// ```
pub struct Reader<'a> {
    strings: &'a dyn Strings,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// Reads from `strings`.
    #[must_use]
    pub fn new(strings: &'a dyn Strings) -> Self {
        Self { strings, mistakes: Vec::new() }
    }

    /// A setting that has to be there.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(text) = self.text(name) else {
            self.mistakes.push(Mistake::Missing { name, expected });
            return None;
        };
        self.parsed(name, expected, &text, parse)
    }

    /// A setting with a default, which also stands for an empty value.
    pub fn or<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        match self.text(name) {
            Some(text) => self.parsed(name, expected, &text, parse),
            None => Some(default),
        }
    }

    /// A setting that may be absent: the inner option says whether it is there, the outer whether it is right.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        self.or(name, expected, None, |text| parse(text).map(Some))
    }

    /// The whole configuration.
    ///
    /// # Errors
    /// Every mistake made while reading.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Mistakes> {
        match value {
            Some(value) if self.mistakes.is_empty() => Ok(value),
            _ => Err(Mistakes(self.mistakes)),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.strings.get(name).filter(|text| !text.is_empty())
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        text: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = parse(text);
        if value.is_none() {
            self.mistakes.push(Mistake::Invalid { name, expected });
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "PORT" => "eighty",
            "TOKEN" => "s3cret",
            "EMPTY" => "",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mut read = Reader::new(&env);
        let port = read.required("PORT", "a TCP port", parse::from_str::<u16>);
        let host = read.required("HOST", "a name", parse::text);
        let empty = read.required("EMPTY", "a name", parse::text);
        let expected = Mistakes(vec![
            Mistake::Invalid { name: "PORT", expected: "a TCP port" },
            Mistake::Missing { name: "HOST", expected: "a name" },
            Mistake::Missing { name: "EMPTY", expected: "a name" },
        ]);
        let error = read.finish(port.zip(host).zip(empty)).unwrap_err();
        assert_eq!(error, expected);
        assert_eq!(error.to_string().lines().count(), 4);
    }

    #[test]
    fn no_message_repeats_a_value() {
        let mut read = Reader::new(&env);
        let token = read.required("TOKEN", "a number", parse::from_str::<u64>);
        let error = read.finish(token).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    fn a_default_stands_for_what_is_absent_or_empty_but_not_for_what_is_wrong() {
        let mut read = Reader::new(&env);
        assert_eq!(read.or("HOST", "a name", "here".to_owned(), parse::text).as_deref(), Some("here"));
        assert_eq!(read.or("EMPTY", "a number", 7, parse::from_str::<u8>), Some(7));
        assert_eq!(read.optional("HOST", "a number", parse::from_str::<u8>), Some(None));
        assert_eq!(read.or("PORT", "a TCP port", 7, parse::from_str::<u8>), None);
        assert!(read.finish(Some(())).is_err());
    }
}
