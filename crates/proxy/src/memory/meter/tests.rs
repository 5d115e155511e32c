use podwitness_runtime::quota::QuotaMetrics;
use proptest::prelude::*;

use super::*;

const PREFACE_TEXT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn meter(limit: usize, http2: bool) -> Arc<Meter> {
    let memory = Memory::new(limit as u64, QuotaMetrics::default());
    let connection = ConnectionHandle::uncounted();
    memory.hold(&connection, CONNECTION).unwrap();
    Meter::new(memory, connection, http2)
}

fn held(meter: &Meter) -> usize {
    meter.lock().held - CONNECTION
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

#[test]
fn half_a_head_is_held_until_it_is_whole_and_the_body_behind_it_is_not() {
    let meter = meter(1 << 20, false);
    meter.read(&[b'a'; 10_000]).unwrap();
    assert_eq!(held(&meter), 3 * STEP);
    let request = meter.requested();
    assert_eq!(held(&meter), 0);
    meter.read(&[b'a'; 50_000]).unwrap();
    assert_eq!(held(&meter), 0);
    drop(request);
    meter.read(&[b'a'; 10_000]).unwrap();
    assert_eq!(held(&meter), 3 * STEP);
}

#[test]
fn a_head_beyond_the_budget_is_refused() {
    let meter = meter(CONNECTION + 8 * STEP, false);
    let taken = (0..1000).take_while(|_| meter.read(&[b'a'; 1000]).is_ok()).count();
    assert_eq!(taken, 8 * STEP / 1000);
}

#[test]
fn an_answer_that_is_not_read_is_held_with_what_tls_keeps() {
    let meter = meter(1 << 20, false);
    meter.given(100_000).unwrap();
    assert_eq!(held(&meter), (100_000 + TLS).next_multiple_of(STEP));
    meter.written(99_999);
    assert_eq!(held(&meter), (1 + TLS).next_multiple_of(STEP));
    meter.written(500);
    assert_eq!(held(&meter), 0);
    assert!(meter.given(1 << 20).is_err());
}

#[test]
fn a_connection_that_became_a_session_counts_nothing() {
    let meter = meter(CONNECTION, false);
    meter.stop();
    meter.read(&[0; 100_000]).unwrap();
    assert_eq!(held(&meter), 0);
}

#[test]
fn an_open_block_of_headers_is_held_as_what_it_may_be_unpacked_to() {
    let meter = meter(1 << 30, true);
    meter.read(PREFACE_TEXT).unwrap();
    meter.read(&frame(4, 0, &[0; 60])).unwrap();
    assert_eq!(held(&meter), 0, "settings are no headers");
    meter.read(&frame(HEADERS, 0, &[0; 1000])).unwrap();
    assert_eq!(held(&meter), 101_000_usize.next_multiple_of(STEP));
    meter.read(&frame(CONTINUATION, END_HEADERS, &[0; 1000])).unwrap();
    assert_eq!(held(&meter), 202_000_usize.next_multiple_of(STEP));
    drop(meter.requested());
    assert_eq!(held(&meter), 0);
    meter.read(&frame(0, 0, &[0; 10_000])).unwrap();
    assert_eq!(held(&meter), 0, "data has a window");
}

#[test]
fn more_than_a_list_may_have_is_not_unpacked() {
    assert_eq!(unpacked(1 << 20), (1 << 20) + MAX_UNPACKED * UNPACKED);
}

proptest! {
    #[test]
    fn frames_are_found_however_they_are_cut(
        frames in prop::collection::vec((0..12_u8, any::<u8>(), 0..300_usize), 0..20),
        step in 1..400_usize,
    ) {
        let mut bytes = PREFACE_TEXT.to_vec();
        let (mut open, mut closed) = (0, 0);
        for (kind, flags, len) in frames {
            bytes.extend(frame(kind, flags, &vec![kind; len]));
            if matches!(kind, HEADERS | CONTINUATION) {
                open += len;
                if flags & END_HEADERS != 0 {
                    closed += unpacked(std::mem::take(&mut open));
                }
            }
        }
        let mut blocks = Blocks::default();
        bytes.chunks(step).for_each(|part| { blocks.read(part); });
        prop_assert_eq!((blocks.open, blocks.closed), (open, closed));
    }
}
