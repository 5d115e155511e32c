//! Text as the inside of a JSON string, fast: this runs over every byte of a session's output.
//!
//! Bytes go through in blocks. A block without anything to escape is copied; any other is spelled byte by byte out of
//! a table, without a branch that depends on the data.

/// Bytes that are copied together if none has to be escaped.
const BLOCK: usize = 16;
/// Bytes that are spelled together.
const BATCH: usize = 64;
/// How a byte is spelled: up to seven bytes, and how many of them count in the last place.
type Spelling = [u8; 8];

/// Spellings of JSON (RFC 8259 §7).
static JSON: [Spelling; 256] = table(false);
/// Spellings of bytes that are no text: what is neither printable ASCII nor one of tab, line end and escape is U+FFFD.
static BINARY: [Spelling; 256] = table(true);

/// Stands for what is no text; the only spelling of its length.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Appends `text` escaped.
pub(super) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    for block in blocks {
        if needs_escape(block) {
            spell(out, block);
        } else {
            out.extend_from_slice(block);
        }
    }
    spell(out, rest);
}

/// Appends `bytes` escaped, with U+FFFD in place of what is not UTF-8.
///
/// Bytes with a NUL among them are no text, as grep and git hold it too; of those nothing but ASCII is kept, and one
/// U+FFFD stands for a run of others.
pub(super) fn push_lossy(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.contains(&0) {
        return spell_binary(out, bytes);
    }
    for chunk in bytes.utf8_chunks() {
        push_text(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(REPLACEMENT);
        }
    }
}

fn spell(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut spelled = [0; 6 * BATCH + 8];
    for block in bytes.chunks(BATCH) {
        let mut len = 0;
        for byte in block {
            len += put(&mut spelled, len, look_up(&JSON, *byte));
        }
        out.extend_from_slice(spelled.get(..len).unwrap_or_default());
    }
}

fn spell_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let (mut spelled, mut replaced) = ([0; 6 * BATCH + 8], false);
    for block in bytes.chunks(BATCH) {
        let mut len = 0;
        for byte in block {
            let put = put(&mut spelled, len, look_up(&BINARY, *byte));
            let replaces = put == REPLACEMENT.len();
            len += if replaces && replaced { 0 } else { put };
            replaced = replaces;
        }
        out.extend_from_slice(spelled.get(..len).unwrap_or_default());
    }
}

#[expect(clippy::indexing_slicing, reason = "a table has a spelling for every byte")]
fn look_up(table: &'static [Spelling; 256], byte: u8) -> &'static Spelling {
    &table[usize::from(byte)]
}

/// Puts a spelling at `at`, whole: what is too much of it is overwritten by the next. Gives its length.
fn put(spelled: &mut [u8], at: usize, spelling: &Spelling) -> usize {
    if let Some(slot) = spelled.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *slot = *spelling;
    }
    usize::from(spelling[7])
}

const fn table(binary: bool) -> [Spelling; 256] {
    let mut table = [[0; 8]; 256];
    let mut rest: &mut [Spelling] = &mut table;
    let mut byte = 0;
    while let Some((slot, behind)) = rest.split_first_mut() {
        *slot = if binary && is_no_text(byte) { [0xef, 0xbf, 0xbd, 0, 0, 0, 0, 3] } else { spelling(byte) };
        byte = byte.wrapping_add(1);
        rest = behind;
    }
    table
}

const fn is_no_text(byte: u8) -> bool {
    !matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r' | 0x1b)
}

const fn spelling(byte: u8) -> Spelling {
    const fn hex(nibble: u8) -> u8 {
        if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
    }
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        0x00..0x20 => return [b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15), 0, 6],
        _ => return [byte, 0, 0, 0, 0, 0, 0, 1],
    };
    [b'\\', short, 0, 0, 0, 0, 0, 2]
}

fn needs_escape(block: &[u8; BLOCK]) -> bool {
    block.iter().fold(false, |any, byte| any | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\'))
}
