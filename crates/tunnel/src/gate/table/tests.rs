use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn key(number: u16) -> PublicKey {
    one_of_many(u32::from(number))
}

fn one_of_many(number: u32) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

fn table(max: usize, max_admitted: usize) -> (Table, Instant) {
    let limits = ProvisionalLimits { max, max_admitted, ..ProvisionalLimits::default() };
    (Table::new(limits), Instant::now())
}

fn sizes(table: &Table) -> (usize, usize) {
    (table.sizes().provisional, table.sizes().admitted)
}

#[test]
fn an_unknown_key_is_provisional_until_it_is_admitted() {
    let (mut table, now) = table(4, 4);
    table.add(key(1), now).unwrap();
    assert_eq!(table.find(address(&key(1))), Some((key(1), Admission::Provisional)));
    let until = now + 60 * SECOND;
    table.admit(&key(1), until, now).unwrap();
    assert_eq!(table.find(address(&key(1))), Some((key(1), Admission::Admitted { until })));
    assert_eq!(table.find(address(&key(2))), None);
}

#[test]
fn a_provisional_peer_ends_after_its_time_even_if_it_talks() {
    let (mut table, now) = table(4, 4);
    table.add(key(1), now).unwrap();
    assert_eq!(table.expire(now + 9 * SECOND), []);
    table.heard(&key(1), now + 9 * SECOND);
    assert_eq!(table.expire(now + 10 * SECOND), [key(1)]);
    assert_eq!(table.find(address(&key(1))), None);
}

#[test]
fn an_admitted_peer_ends_with_its_assertion_unless_that_is_renewed() {
    let (mut table, now) = table(4, 4);
    table.add(key(1), now).unwrap();
    table.admit(&key(1), now + 60 * SECOND, now).unwrap();
    table.admit(&key(1), now + 120 * SECOND, now + 50 * SECOND).unwrap();
    assert_eq!(table.expire(now + 119 * SECOND), []);
    assert_eq!(table.expire(now + 120 * SECOND), [key(1)]);
}

#[test]
fn an_admitted_peer_that_falls_silent_ends() {
    let (mut table, now) = table(4, 4);
    let idle = ProvisionalLimits::default().idle;
    table.add(key(1), now).unwrap();
    table.admit(&key(1), now + 10 * idle, now).unwrap();
    table.heard(&key(1), now + idle);
    assert_eq!(table.expire(now + 2 * idle - SECOND), []);
    assert_eq!(table.expire(now + 2 * idle), [key(1)]);
}

#[test]
fn a_full_table_refuses_while_all_are_within_their_grace() {
    let (mut table, now) = table(2, 4);
    table.add(key(1), now).unwrap();
    table.add(key(2), now).unwrap();
    assert_eq!(table.add(key(3), now), Err(Full));
    assert_eq!(sizes(&table), (2, 0));
}

#[test]
fn in_a_full_table_the_oldest_unproven_peer_gives_way_first() {
    let (mut table, now) = table(3, 4);
    for number in 1..=3 {
        table.add(key(number), now + SECOND / 10 * u32::from(number)).unwrap();
    }
    table.heard(&key(1), now + SECOND);
    assert_eq!(table.add(key(4), now + 2 * SECOND), Ok(Some(key(2))));
    assert_eq!(table.add(key(5), now + 2 * SECOND + SECOND / 10), Ok(Some(key(3))));
    assert_eq!(table.add(key(6), now + 2 * SECOND), Err(Full), "the proven one has a longer grace");
    assert_eq!(table.add(key(7), now + 9 * SECOND), Ok(Some(key(4))));
}

#[test]
fn strangers_never_push_out_who_is_admitted() {
    let (mut table, now) = table(8, 4);
    table.add(key(9999), now).unwrap();
    table.admit(&key(9999), now + 3600 * SECOND, now).unwrap();
    for number in 0..5000 {
        // One stranger every 10 ms, none of which goes on.
        let at = now + Duration::from_millis(10) * u32::from(number);
        let _ = table.add(key(number), at);
        assert!(table.sizes().provisional <= 8);
    }
    assert!(matches!(table.find(address(&key(9999))), Some((_, Admission::Admitted { .. }))));
}

#[test]
fn only_so_many_are_admitted_and_the_rest_is_told() {
    let (mut table, now) = table(8, 2);
    let until = now + 60 * SECOND;
    for number in 1..=3 {
        table.add(key(number), now).unwrap();
    }
    assert_eq!(table.admit(&key(1), until, now), Ok(()));
    assert_eq!(table.admit(&key(2), until, now), Ok(()));
    assert_eq!(table.admit(&key(3), until, now), Err(AdmitError::Full));
    assert_eq!(table.admit(&key(1), until, now), Ok(()), "a renewal needs no new place");
    assert_eq!(table.admit(&key(4), until, now), Err(AdmitError::Unknown));
    assert_eq!(sizes(&table), (1, 2));
}

#[test]
fn of_a_hundred_thousand_keys_only_the_live_ones_are_held() {
    const KEYS: u32 = 100_000;
    let (mut table, begin) = (Table::new(ProvisionalLimits::default()), Instant::now());
    let idle = ProvisionalLimits::default().idle;
    // Ten pods a second record something and fall silent, with an hour left of their assertions.
    let at = |number: u32| begin + Duration::from_millis(100) * number;
    let live = usize::try_from(idle.as_secs() * 10).unwrap();
    let mut most = 0;
    for number in 0..KEYS {
        let (key, now) = (one_of_many(number), at(number));
        table.add(key, now).unwrap();
        table.heard(&key, now);
        table.admit(&key, now + 3600 * SECOND, now).unwrap();
        if number % 100 == 0 {
            table.expire(now);
            most = most.max(table.sizes().admitted);
        }
    }
    assert!(most <= live + 1, "{most} peers were held, and {live} lived");
    assert_eq!(table.addresses.len(), table.provisional.len() + table.admitted.len());
    assert!(table.admitted.capacity() <= 4 * live, "room for {} peers", table.admitted.capacity());
    table.expire(at(KEYS) + idle);
    assert_eq!((sizes(&table), table.addresses.len()), ((0, 0), 0));
}
