//! Whatever stands in the index beside spooled lines: its regions follow on each other within the limit, and the part of
//! the index that belongs to each gives its blocks again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_wire::spool::{Regions, blocks};

fuzz_target!(|input: (u32, &[u8])| {
    let (limit, index) = input;
    let Some((_, all)) = blocks(index) else { return };
    let all: Vec<_> = all.collect();
    let regions = Regions::of(all.iter().copied(), limit.into());
    assert!(regions.len() <= limit.into());
    let (mut offset, mut seen) = (0, 0);
    while let Some(region) = regions.at(offset) {
        assert_eq!((region.offset, region.first), (offset, seen));
        let from = usize::try_from(region.index_at()).unwrap();
        let (before, part) = blocks(&index[from..][..usize::try_from(region.index_len()).unwrap()]).unwrap();
        if let Some(last) = usize::try_from(seen).unwrap().checked_sub(1) {
            assert_eq!(before, all[last].mac);
        }
        let part: Vec<_> = part.collect();
        assert_eq!(part, all[usize::try_from(seen).unwrap()..][..part.len()]);
        assert_eq!(part.iter().map(|block| u64::from(block.len)).sum::<u64>(), region.len);
        offset = region.end();
        seen += region.count;
    }
    assert_eq!((offset, seen), (regions.len(), regions.count()));
});
