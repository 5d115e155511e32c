//! The index beside a file of spooled lines: for each block of lines its length and its MAC (message authentication
//! code), behind the MAC of the block before the file's first.
//!
//! `MAC (32 bytes), then per block: length (u32, big endian), MAC (32 bytes)`. So the MAC before any block is the 32
//! bytes in front of its record, for the first one as well. What a MAC is made of, its owner knows.

/// A MAC of 256 bits.
pub type Mac = [u8; 32];

/// Bytes of a MAC.
const MAC: usize = size_of::<Mac>();
/// Bytes of the record of a block.
pub const RECORD: usize = 4 + MAC;
/// Bytes of lines that are checked at once, and the blocks that they end in.
pub const REGION: u64 = 256 << 10;

/// Longest block: what one frame of a session becomes, several times over. A region is read at once, so that an index
/// which was tampered with makes no reader take more than this and [`REGION`].
pub const MAX_BLOCK: u32 = 4 << 20;

/// One block of lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    /// Bytes.
    pub len: u32,
    /// Its MAC.
    pub mac: Mac,
}

/// Consecutive blocks of a file, which are checked together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Region {
    /// Where it begins in the file of lines.
    pub offset: u64,
    /// Bytes of lines.
    pub len: u64,
    /// Number of its first block.
    pub first: u64,
    /// How many blocks it has.
    pub count: u64,
}

/// Where regions begin in a file: what is kept of its index in memory.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// Offset and number of the first block of each region.
    starts: Vec<(u64, u64)>,
    len: u64,
    count: u64,
}

impl Block {
    /// Its record in the index.
    #[must_use]
    pub fn to_record(&self) -> Vec<u8> {
        [&self.len.to_be_bytes()[..], &self.mac].concat()
    }

    /// Of its record; `None` where that is not as long as one.
    #[must_use]
    pub fn of_record(record: &[u8]) -> Option<Self> {
        let (len, mac) = record.split_first_chunk::<4>()?;
        Some(Self { len: u32::from_be_bytes(*len), mac: mac.try_into().ok()? })
    }
}

/// Where the record of the block with this number stands in the index.
#[must_use]
pub const fn record_at(number: u64) -> u64 {
    MAC as u64 + number * RECORD as u64
}

/// The MAC before the first of some blocks, and the blocks, from the bytes of the index that begin with that MAC. A torn
/// record at the end is none. `None` where there is not even the MAC.
#[must_use]
pub fn blocks(index: &[u8]) -> Option<(Mac, impl Iterator<Item = Block> + '_)> {
    let (before, records) = index.split_first_chunk::<MAC>()?;
    Some((*before, records.chunks_exact(RECORD).filter_map(Block::of_record)))
}

impl Region {
    /// Where its part of the index stands, the MAC before it included.
    #[must_use]
    pub const fn index_at(&self) -> u64 {
        record_at(self.first) - MAC as u64
    }

    /// How long that part is.
    #[must_use]
    pub const fn index_len(&self) -> u64 {
        MAC as u64 + self.count * RECORD as u64
    }

    /// Where it ends in the file of lines.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }
}

impl Regions {
    /// The regions of an index, of blocks that end at `limit` or before; what comes behind the first block that does not
    /// is left out.
    pub fn of(blocks: impl IntoIterator<Item = Block>, limit: u64) -> Self {
        let mut regions = Self::default();
        for block in blocks {
            let len = u64::from(block.len);
            if len == 0 || block.len > MAX_BLOCK || regions.len + len > limit {
                break;
            }
            regions.push(len);
        }
        regions
    }

    /// Bytes of lines in all.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of blocks.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// A block of so many bytes follows.
    pub fn push(&mut self, len: u64) {
        if self.starts.last().is_none_or(|(offset, _)| self.len - offset >= REGION) {
            self.starts.push((self.len, self.count));
        }
        self.len += len;
        self.count += 1;
    }

    /// The region in which a byte of the lines lies.
    #[must_use]
    pub fn at(&self, offset: u64) -> Option<Region> {
        if offset >= self.len {
            return None;
        }
        let next = self.starts.partition_point(|(start, _)| *start <= offset);
        let (start, first) = *self.starts.get(next.checked_sub(1)?)?;
        let (end, behind) = self.starts.get(next).copied().unwrap_or((self.len, self.count));
        Some(Region { offset: start, len: end - start, first, count: behind - first })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mac_before_a_block_stands_before_its_record() {
        let [one, two] = [1, 2].map(|n| Block { len: n, mac: [n as u8; MAC] });
        let index = [vec![9; MAC], one.to_record(), two.to_record(), vec![7; RECORD - 1]].concat();
        let (before, all) = blocks(&index).unwrap();
        assert_eq!((before, all.collect::<Vec<_>>()), ([9; MAC], vec![one, two]));
        let region = Region { offset: 1, len: 2, first: 1, count: 1 };
        let from = usize::try_from(region.index_at()).unwrap();
        let part = &index[from..][..usize::try_from(region.index_len()).unwrap()];
        let (before, all) = blocks(part).unwrap();
        assert_eq!((before, all.collect::<Vec<_>>()), (one.mac, vec![two]));
        assert!(blocks(&index[..MAC - 1]).is_none());
    }

    proptest! {
        #[test]
        fn regions_follow_on_each_other_and_hold_whole_blocks(
            lengths in prop::collection::vec(0u32..400_000, 0..60), limit in 0u64..8_000_000,
        ) {
            let regions = Regions::of(lengths.iter().map(|len| Block { len: *len, mac: [0; MAC] }), limit);
            prop_assert!(regions.len() <= limit);
            let (mut offset, mut first) = (0, 0);
            while let Some(region) = regions.at(offset) {
                prop_assert_eq!((region.offset, region.first), (offset, first));
                prop_assert_eq!(regions.at(region.end() - 1), Some(region));
                let blocks = &lengths[first as usize..][..region.count as usize];
                prop_assert_eq!(blocks.iter().map(|len| u64::from(*len)).sum::<u64>(), region.len);
                offset = region.end();
                first += region.count;
                prop_assert!(region.len >= REGION || offset == regions.len());
            }
            prop_assert_eq!((offset, first), (regions.len(), regions.count()));
        }
    }
}
