use super::*;

fn limiter(total: usize, per_key: usize) -> ConnectionLimiter {
    ConnectionLimiter::with(QuotaLimits { total, per_key }, QuotaMetrics::default())
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn is_revoked(connection: &ConnectionHandle) -> bool {
    connection.0.revoked.is_cancelled()
}

#[tokio::test(start_paused = true)]
async fn idle_connections_of_one_source_never_keep_another_out() {
    let limiter = limiter(8, 4);
    let held: Vec<_> = (0..100).filter_map(|n| limiter.open(address(n % 2)).ok()).collect();
    assert_eq!((held.len(), limiter.open_connections()), (100, 8), "each newer one ends an older one");
    let rightful = limiter.open(address(9)).unwrap();
    for n in 0..100 {
        drop(limiter.open(address(n % 2)));
    }
    assert!(!is_revoked(&rightful));
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_stays_and_counts_as_idle_from_when_it_is_done() {
    let limiter = limiter(1, 1);
    let first = limiter.open(address(1)).unwrap();
    let (one, two) = (first.busy(), first.busy());
    drop(one);
    assert_eq!(limiter.open(address(1)).unwrap_err(), QuotaExceeded::PerKey);
    drop(two);
    assert!(limiter.open(address(1)).is_ok());
    assert!(is_revoked(&first));
}

#[tokio::test(start_paused = true)]
async fn an_authenticated_connection_is_counted_to_its_name_and_frees_its_source() {
    let limiter = limiter(2, 2);
    let names = Quota::new(QuotaLimits { total: 8, per_key: 1 }, QuotaMetrics::default());
    let name = || QuotaKey::Name("pod".into());
    let first = limiter.open(address(1)).unwrap();
    first.authenticate(&names, name()).unwrap();
    first.authenticate(&names, name()).unwrap();
    assert_eq!((limiter.open_connections(), names.used()), (0, 1));
    let flood: Vec<_> = (0..50).map(|_| limiter.open(address(1)).unwrap()).collect();
    assert!(first.is_authenticated() && !is_revoked(&first));
    let busy = first.busy();
    let second = flood.last().unwrap();
    assert_eq!(second.authenticate(&names, name()), Err(QuotaExceeded::PerKey));
    assert!(!second.is_authenticated() && !is_revoked(second));
    drop(busy);
    second.authenticate(&names, name()).unwrap();
    assert!(is_revoked(&first), "the newest of a name stays");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_for_a_time_only_without_a_break() {
    let connection = ConnectionHandle::uncounted();
    let begun = Instant::now();
    let user = {
        let connection = connection.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let busy = connection.busy();
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(busy);
        }
    };
    tokio::join!(user, connection.idle_for(Duration::from_secs(5)));
    assert_eq!(begun.elapsed(), Duration::from_secs(29));
}

#[tokio::test(start_paused = true)]
async fn memory_of_idle_connections_is_given_to_others_and_ends_them() {
    let limiter = limiter(8, 8);
    let memory = Quota::new(QuotaLimits { total: 100, per_key: 100 }, QuotaMetrics::default());
    let key = QuotaKey::Name("pod".into());
    let hold = |connection: &ConnectionHandle, bytes| connection.hold(&memory, &key, bytes);
    let (idle, busy) = (limiter.open(address(1)).unwrap(), limiter.open(address(2)).unwrap());
    hold(&idle, 40).unwrap();
    let working = busy.busy();
    hold(&busy, 60).unwrap();
    let next = limiter.open(address(3)).unwrap();
    hold(&next, 40).unwrap();
    assert!(is_revoked(&idle) && !is_revoked(&busy));
    assert_eq!(hold(&next, 41), Err(QuotaExceeded::PerKey), "what is busy is not taken away");
    drop(working);
    hold(&next, 41).unwrap();
    assert!(is_revoked(&busy));
    drop(next);
    assert_eq!(memory.used(), 0);
}
