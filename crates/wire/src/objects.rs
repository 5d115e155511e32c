//! JSON objects out of a stream in which they stand one after the other, cut anywhere.
//!
//! Source: Go's `json.Decoder`, which writes and reads both resize messages and acknowledgements that way.

/// Collects the bytes of one object at a time; holds at most `cap` of them.
#[derive(Debug)]
pub(crate) struct Objects {
    held: Vec<u8>,
    cap: usize,
    depth: usize,
    string: Str,
    broken: bool,
}

/// Where the scanner is with regard to strings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Str {
    Outside,
    Inside,
    Escaped,
}

/// The stream holds something else than objects, or a longer one than the cap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Broken;

impl Objects {
    pub(crate) const fn new(cap: usize) -> Self {
        Self { held: Vec::new(), cap, depth: 0, string: Str::Outside, broken: false }
    }

    /// Shows every object that `bytes` complete. Terminal once it failed.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(&[u8])) -> Result<(), Broken> {
        for byte in bytes {
            if self.broken {
                return Err(Broken);
            }
            if self.push(*byte) {
                see(&self.held);
                self.held.clear();
            }
        }
        if self.broken { Err(Broken) } else { Ok(()) }
    }

    /// Whether the stream ended between two objects.
    pub(crate) const fn at_rest(&self) -> bool {
        self.depth == 0 && !self.broken
    }

    /// Whether `byte` completes an object.
    fn push(&mut self, byte: u8) -> bool {
        if self.depth == 0 {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'{' => {
                    self.held.push(byte);
                    self.depth = 1;
                }
                _ => self.broken = true,
            }
            return false;
        }
        self.held.push(byte);
        self.broken = self.held.len() > self.cap;
        self.string = match (self.string, byte) {
            (Str::Inside, b'\\') => Str::Escaped,
            (Str::Inside, b'"') => Str::Outside,
            (Str::Outside, b'"') | (Str::Escaped, _) => Str::Inside,
            (state, _) => state,
        };
        if self.string == Str::Outside {
            match byte {
                b'{' => self.depth += 1,
                b'}' => self.depth -= 1,
                _ => {}
            }
        }
        self.depth == 0 && !self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&str], cap: usize) -> Result<Vec<String>, Broken> {
        let (mut objects, mut seen) = (Objects::new(cap), vec![]);
        for piece in pieces {
            objects.feed(piece.as_bytes(), |o| seen.push(String::from_utf8(o.to_vec()).unwrap()))?;
        }
        Ok(seen)
    }

    #[test]
    fn objects_are_found_joined_split_and_nested() {
        let found = all(&["{\"a\":{}}\n{", "\"b\":\"}\\\"{\"", "} {}"], 64).unwrap();
        assert_eq!(found, ["{\"a\":{}}", "{\"b\":\"}\\\"{\"}", "{}"]);
    }

    #[test]
    fn anything_but_objects_breaks_it_for_good() {
        assert_eq!(all(&["{} 7"], 64), Err(Broken));
        assert_eq!(all(&["{\"long\":1}"], 4), Err(Broken));
        let mut objects = Objects::new(64);
        assert_eq!(objects.feed(b"x", |_| {}), Err(Broken));
        assert_eq!(objects.feed(b"{}", |_| panic!()), Err(Broken));
    }
}
