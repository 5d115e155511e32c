//! A bucket that cannot be reached for an hour, on a clock that runs as fast as it may.

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{bucket::Class, ship::status::Backlog};

const MINUTE: Duration = Duration::from_secs(60);
const MINUTES: usize = 60;

/// A session that is shipped while it lasts.
struct Session {
    name: String,
    part: Part,
    shipment: Shipment,
    said: String,
}

impl Session {
    fn begin(lab: &Lab, shipper: &Shipper, name: &str) -> Self {
        let part = lab.part(name);
        let shipment = shipper.follow(&part);
        let mut session = Self { name: name.to_owned(), part, shipment, said: String::new() };
        session.say(HEADER);
        session
    }

    fn say(&mut self, text: &str) {
        self.part.append(&[text.as_bytes()]).unwrap();
        self.said.push_str(text);
        self.shipment.written(self.part.written());
    }

    fn end(self) -> (String, String) {
        let Self { name, part, shipment, said } = self;
        part.finish(end()).unwrap();
        drop(shipment);
        (name, said)
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_the_bucket_loses_nothing_and_asks_it_seldom() {
    let lab = Lab::new(0);
    lab.flaky.away.store(true, Ordering::Relaxed);
    let shipper = lab.ship(AckLevel::Volume, None);
    let status = shipper.status();
    let (mut lasting, mut all) = (Session::begin(&lab, &shipper, "lasting"), Vec::new());
    for minute in 0..MINUTES {
        let mut short = Session::begin(&lab, &shipper, &format!("s{minute}"));
        lab.ended(&format!("left{minute}"), HEADER);
        sleep(MINUTE).await;
        lasting.say(&lines(1));
        short.say(&lines(1));
        all.extend([short.end(), (format!("left{minute}"), HEADER.to_owned())]);
    }
    let asked = lab.flaky.puts.load(Ordering::Relaxed);
    // The longest pause is half a minute and each at least half as long; some more on the way there.
    assert!((MINUTES..=4 * MINUTES + 10).contains(&asked), "{asked} requests");
    assert_eq!((status.failing(), status.is_well()), (Some(Class::Unreachable), false));
    let bytes = all.iter().map(|(_, said)| said.len()).sum::<usize>() + lasting.said.len();
    let counted = async {
        while status.backlog().bytes != bytes as u64 {
            sleep(Duration::from_secs(1)).await;
        }
    };
    // A look takes as long as the bucket takes to fail.
    timeout(MINUTE * 30, counted).await.expect("everything that waits is counted");
    assert!(status.backlog().age >= MINUTE * 59, "{:?}", status.backlog());

    lab.flaky.away.store(false, Ordering::Relaxed);
    let back = Instant::now();
    while lasting.shipment.shipped() < lasting.part.written() {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(back.elapsed() <= MINUTE, "{:?}", back.elapsed());
    all.push(lasting.end());
    for (name, said) in &all {
        assert!(lab.whole(&key(name)).await == said.as_bytes(), "{name}");
        let objects = lab.bucket.list(&key(name), None, 100).await.unwrap();
        let manifest = lab.manifest(&key(name)).await.unwrap();
        assert_eq!(objects.len(), manifest.segments.len() + 2, "{name} was cut in two ways: {objects:?}");
    }
    eventually(async || (status.backlog() == Backlog::default()).then_some(())).await;
    assert!(status.is_well());
}
