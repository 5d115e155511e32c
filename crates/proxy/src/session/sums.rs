//! Output that is an archive, as `kubectl cp` asks a container for one: its members are listed with their hashes, and
//! what nobody could have read of it is left out.
//!
//! That it is an archive is not taken from the client, who may say `cp` and mean something else, but seen in the bytes;
//! and whatever those claim, only pieces that are not readable are left out. So text behind a forged header is recorded
//! as if there were none. Lines about the stream as a whole come often enough that what is left out cannot run ahead of
//! its recording.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use podwitness_wire::{
    archive::{Archive, Member, PIECE, Piece, is_readable},
    cast::{Encoder, Stream, Sum},
};

/// So many bytes are left out between two lines about the whole, at most.
const CHECK: u64 = 64 << 10;

/// Follows the standard output of a session without a terminal.
pub(super) struct Sums {
    archive: Archive,
    known: Known,
}

/// Where lines go.
pub(super) struct Lines<'a> {
    pub(super) encoder: &'a mut Encoder,
    pub(super) lines: &'a mut Vec<u8>,
    pub(super) at: Duration,
}

/// What is known so far.
struct Known {
    whole: Count,
    left_out: u64,
    /// The same when it was last written down.
    written: u64,
    member: Option<Open>,
}

struct Open {
    member: Member,
    content: Count,
    /// What had been left out before it.
    before: u64,
    announced: bool,
}

#[derive(Clone)]
struct Count {
    hash: Context,
    bytes: u64,
}

impl Default for Sums {
    fn default() -> Self {
        let known = Known { whole: Count::new(), left_out: 0, written: 0, member: None };
        Self { archive: Archive::new(), known }
    }
}

impl Sums {
    /// Whether the output is no archive, or not any more.
    pub(super) fn is_over(&self) -> bool {
        self.archive.is_foreign()
    }

    /// Records a piece of output.
    pub(super) fn record(&mut self, to: &mut Lines<'_>, bytes: &[u8]) {
        let Self { archive, known } = self;
        let rest = archive.feed(bytes, |piece| known.see(to, piece));
        known.announce(to);
        let over = archive.is_foreign() && archive.has_begun();
        if over || known.left_out - known.written >= CHECK {
            known.write_whole(to);
        }
        to.output(rest);
    }

    /// Nothing more can be followed.
    pub(super) fn finish(mut self, to: &mut Lines<'_>) {
        if self.archive.has_begun() && !self.archive.is_foreign() {
            self.known.end_member(to);
            self.known.write_whole(to);
        }
    }
}

impl Lines<'_> {
    fn output(&mut self, bytes: &[u8]) {
        self.encoder.output(self.lines, self.at, Stream::Stdout, bytes);
    }

    fn sum(&mut self, sum: &Sum) {
        Encoder::sum(self.lines, self.at, sum);
    }
}

impl Known {
    fn see(&mut self, to: &mut Lines<'_>, piece: Piece<'_>) {
        match piece {
            Piece::Open(bytes) => {
                self.whole.add(bytes);
                to.output(bytes);
            }
            Piece::Frame(bytes) => self.take(to, bytes),
            Piece::Content(bytes) => {
                if let Some(open) = &mut self.member {
                    open.content.add(bytes);
                }
                self.take(to, bytes);
            }
            Piece::Begin(member) => self.member = Some(Open::new(member.clone(), self.left_out)),
            Piece::End => self.end_member(to),
        }
    }

    /// Records what is readable of some bytes.
    fn take(&mut self, to: &mut Lines<'_>, mut bytes: &[u8]) {
        self.whole.add(bytes);
        while !bytes.is_empty() {
            let (kept, behind) = bytes.split_at(run(bytes, true));
            let (left, behind) = behind.split_at(run(behind, false));
            to.output(kept);
            self.left_out += left.len() as u64;
            bytes = behind;
        }
    }

    /// Names a member whose end is not near.
    fn announce(&mut self, to: &mut Lines<'_>) {
        if let Some(open) = self.member.as_mut().filter(|open| !open.announced) {
            open.announced = true;
            to.sum(&open.sum());
        }
    }

    fn end_member(&mut self, to: &mut Lines<'_>) {
        if let Some(open) = self.member.take() {
            let left_out = Some(self.left_out - open.before);
            to.sum(&Sum { left_out, bytes: open.content.bytes, sha256: open.content.hex(), ..open.sum() });
        }
    }

    fn write_whole(&mut self, to: &mut Lines<'_>) {
        self.written = self.left_out;
        to.sum(&Sum {
            bytes: self.whole.bytes,
            left_out: Some(self.left_out),
            sha256: self.whole.hex(),
            ..Sum::of(Stream::Stdout)
        });
    }
}

impl Open {
    fn new(member: Member, before: u64) -> Self {
        Self { member, content: Count::new(), before, announced: false }
    }

    /// What its header says.
    fn sum(&self) -> Sum {
        let Member { name, link, size } = self.member.clone();
        Sum { member: Some(name), link, size: Some(size), ..Sum::of(Stream::Stdout) }
    }
}

impl Count {
    fn new() -> Self {
        Self { hash: Context::new(&SHA256), bytes: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn hex(&self) -> String {
        crate::sha256::finish(self.hash.clone()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Length of the front that is readable, or not.
fn run(bytes: &[u8], readable: bool) -> usize {
    bytes.chunks(PIECE).take_while(|piece| is_readable(piece) == readable).map(<[u8]>::len).sum()
}
