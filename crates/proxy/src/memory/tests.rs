use podwitness_runtime::connection::ConnectionLimiter;
use tokio::time::sleep;

use super::*;

const LIMIT: usize = 1000;

struct Lab {
    memory: Arc<Memory>,
    connections: ConnectionLimiter,
}

impl Lab {
    fn new() -> Self {
        let limits = QuotaLimits { total: 64, per_key: 64 };
        let connections = ConnectionLimiter::with(limits, QuotaMetrics::default());
        Self { memory: Memory::new(LIMIT as u64, QuotaMetrics::default()), connections }
    }

    fn connection(&self) -> ConnectionHandle {
        self.connections.open([127, 0, 0, 1].into()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_its_client_gives_way_to_the_next_and_one_that_moves_does_not() {
    let lab = Lab::new();
    let connections: Vec<_> = (0..3).map(|_| lab.connection()).collect();
    let flights: Vec<_> =
        connections.iter().map(|connection| lab.memory.open(connection, 300).unwrap()).collect();
    flights[0].waits_to_read(true);
    flights[1].waits_to_send(true);
    sleep(STALL).await;
    flights[0].waits_to_read(false);
    let next = lab.connection();
    let flight = lab.memory.open(&next, 300).unwrap();
    let ended: Vec<bool> =
        connections.iter().map(|connection| connection.revocation().is_cancelled()).collect();
    assert_eq!(ended, [false, true, false]);
    assert_eq!(flight.resize(LIMIT), Err(QuotaExceeded::PerKey));
    drop((flights, flight));
    assert_eq!((lab.memory.quota.used(), lab.memory.lock().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_room_and_not_for_ever() {
    let lab = Lab::new();
    let (first, second) = (lab.connection(), lab.connection());
    let (busy, next) = (lab.memory.open(&first, 900).unwrap(), lab.memory.open(&second, 10).unwrap());
    let begun = Instant::now();
    assert_eq!(next.wait(200).await, Err(QuotaExceeded::PerKey));
    assert!(begun.elapsed() >= PATIENCE);
    let later = async {
        sleep(STALL).await;
        drop(busy);
    };
    let (waited, ()) = tokio::join!(next.wait(200), later);
    assert_eq!((waited, lab.memory.quota.used()), (Ok(()), 200));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_give_way_and_those_that_work_do_not() {
    let lab = Lab::new();
    let (idle, working) = (lab.connection(), lab.connection());
    lab.memory.hold(&idle, 400).unwrap();
    lab.memory.hold(&working, 400).unwrap();
    let _busy = working.busy();
    let next = lab.connection();
    lab.memory.hold(&next, 400).unwrap();
    assert!(idle.revocation().is_cancelled() && !working.revocation().is_cancelled());
    assert!(lab.memory.hold(&next, 601).is_err());
    assert_eq!(lab.memory.quota.used(), 800);
}
