//! Terminal sizes: JSON objects in a stream, as Go's `json.Encoder` writes them.

use serde_json::{Map, Value};

use crate::objects::Objects;

/// Cap on one object, far above `{"Width":65535,"Height":65535}`.
const MAX_OBJECT: usize = 1024;

/// Size of a terminal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// Reads the resize channel. Like the server, it stops for good at the first thing that is no size.
#[derive(Debug)]
pub(crate) struct Resizes {
    objects: Objects,
    stopped: bool,
}

impl Default for Resizes {
    fn default() -> Self {
        Self { objects: Objects::new(MAX_OBJECT), stopped: false }
    }
}

impl Resizes {
    pub(crate) fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(Size)) {
        let stopped = &mut self.stopped;
        let fed = self.objects.feed(bytes, |object| match read(object) {
            Some(size) if !*stopped => see(size),
            _ => *stopped = true,
        });
        self.stopped |= fed.is_err();
    }

    /// Nothing more is read.
    pub(super) const fn stop(&mut self) {
        self.stopped = true;
    }
}

fn read(object: &[u8]) -> Option<Size> {
    let fields: Map<String, Value> = serde_json::from_slice(object).ok()?;
    Some(Size { cols: field(&fields, "width")?, rows: field(&fields, "height")? })
}

/// Go matches keys without regard to case and takes a missing one for zero.
fn field(fields: &Map<String, Value>, name: &str) -> Option<u16> {
    let found = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    match found {
        None | Some((_, Value::Null)) => Some(0),
        Some((_, value)) => value.as_u64()?.try_into().ok(),
    }
}
