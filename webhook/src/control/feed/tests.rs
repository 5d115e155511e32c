use podwitness_core::assertion;
use podwitness_runtime::drain::{Drain, Signal};

use super::{
    super::{
        assertions::testing::assertions,
        pod::testing::{injected, pod},
        pods::testing::pods,
        registry::Request,
        role::Role,
        streams::Streams,
        testing::Api,
        token::{Bound, testing::NOW},
        world::{
            World,
            testing::{grant, world},
        },
    },
    *,
};

const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

struct Setup {
    worlds: watch::Sender<Option<Arc<Published>>>,
    feeds: Feeds,
    streams: Streams,
    api: Api,
    drain: Option<Signal>,
}

fn setup() -> Setup {
    let worlds = watch::Sender::new(None);
    let (signal, drain) = Drain::new();
    let api = Api::default();
    let enrolments = Enrolments::default();
    let sandbox = pod(injected()).sandbox();
    enrolments
        .lock()
        .claim(Request { uid: "uid-till", key: KEY, recorder: None, sandbox, proof: None })
        .unwrap();
    let feeds = Feeds {
        worlds: worlds.subscribe(),
        enrolments,
        assertions: assertions(NOW).0,
        pods: pods(vec![pod(injected())], api.client()),
        drain,
    };
    Setup { worlds, feeds, streams: Streams::default(), api, drain: Some(signal) }
}

impl Setup {
    fn publish(&self, generation: u64, world: World) {
        self.worlds.send_replace(Some(Arc::new(Published { generation, world })));
    }

    fn open(&self, life: u64) -> Feed {
        let pod = Arc::new(pod(injected()));
        let bound = Bound {
            namespace: "shop".into(),
            pod: "till".into(),
            pod_uid: "uid-till".into(),
            service_account: "till".into(),
            exp: 0,
        };
        let caller = Caller { bound, pod, role: Role::Sidecar, mode: None };
        let place = self.streams.open("uid-till").unwrap();
        self.feeds.open(caller, KEY.into(), place, Duration::from_secs(life))
    }
}

fn netmap(update: Option<Update>) -> Netmap {
    let Some(Update::Netmap(netmap)) = update else { panic!("no netmap but {update:?}") };
    *netmap
}

async fn expect_assertion(feed: &mut Feed) {
    let Some(Update::Assertion(text)) = feed.next().await else { panic!("no assertion") };
    let issuer = feed.feeds.assertions.issuer().clone();
    assert_eq!(assertion::verify(&text, &[issuer], NOW).unwrap().key, KEY);
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_a_snapshot_and_an_assertion() {
    let setup = setup();
    setup.publish(1, world());
    let mut feed = setup.open(3600);
    let first = netmap(feed.next().await);
    assert_eq!((first.generation, first.grants.len()), (1, 2));
    expect_assertion(&mut feed).await;
    assert_eq!(feed.next().await, Some(Update::Alive {}));
}

#[tokio::test(start_paused = true)]
async fn only_a_change_that_concerns_the_pod_is_sent() {
    let setup = setup();
    setup.publish(1, world());
    let mut feed = setup.open(3600);
    netmap(feed.next().await);
    expect_assertion(&mut feed).await;
    let mut elsewhere = world();
    elsewhere.grants.push(grant("blog", "namespace:blog", "tag:a"));
    setup.publish(2, elsewhere.clone());
    assert_eq!(feed.next().await, Some(Update::Alive {}));
    elsewhere.grants.push(grant("shop", "namespace:shop", "tag:a"));
    setup.publish(3, elsewhere);
    let next = netmap(feed.next().await);
    assert_eq!((next.generation, next.grants.len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stream_opened_too_early_waits_for_the_first_world() {
    let setup = setup();
    let mut feed = setup.open(3600);
    expect_assertion(&mut feed).await;
    assert_eq!(feed.next().await, Some(Update::Alive {}));
    setup.publish(1, world());
    netmap(feed.next().await);
}

#[tokio::test(start_paused = true)]
async fn assertions_are_renewed_at_two_thirds_of_their_life() {
    let setup = setup();
    setup.publish(1, world());
    let mut feed = setup.open(7200);
    let begun = Instant::now();
    netmap(feed.next().await);
    expect_assertion(&mut feed).await;
    loop {
        match feed.next().await.unwrap() {
            Update::Alive {} => {}
            Update::Assertion(_) => break,
            Update::Netmap(_) => panic!("nothing changed"),
        }
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(2400));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_token() {
    let setup = setup();
    setup.publish(1, world());
    let mut feed = setup.open(35);
    let begun = Instant::now();
    while feed.next().await.is_some() {}
    assert_eq!(begun.elapsed(), Duration::from_secs(35));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_pod_is_gone() {
    let mut setup = setup();
    setup.feeds.pods = pods(vec![], setup.api.client());
    setup.api.answer("GET", "/api/v1/namespaces/shop/pods/till", injected());
    setup.publish(1, world());
    let mut feed = setup.open(3600);
    netmap(feed.next().await);
    expect_assertion(&mut feed).await;
    assert_eq!(feed.next().await, Some(Update::Alive {}));
    setup.api.forget("GET", "/api/v1/namespaces/shop/pods/till");
    assert_eq!(feed.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_another_key_is_the_pod_s() {
    let setup = setup();
    setup.publish(1, world());
    let mut feed = setup.open(7200);
    netmap(feed.next().await);
    expect_assertion(&mut feed).await;
    feed.key = "another".into();
    let begun = Instant::now();
    while feed.next().await.is_some() {}
    assert_eq!(begun.elapsed(), Assertions::renewal());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_the_pod_opens_another_or_the_server_drains() {
    let mut setup = setup();
    setup.publish(1, world());
    let mut first = setup.open(3600);
    let mut second = setup.open(3600);
    assert_eq!(first.next().await, None);
    netmap(second.next().await);
    let signal = setup.drain.take().unwrap();
    let drained = tokio::spawn(signal.drain(Duration::from_secs(1)));
    while second.next().await.is_some() {}
    drained.await.unwrap();
}

#[test]
fn a_line_that_no_reader_accepts_is_not_sent() {
    let roots = vec!["x".repeat(MAX_LINE)];
    assert!(line(&Update::Netmap(Box::new(Netmap { roots, ..Netmap::default() }))).is_none());
    assert_eq!(line(&Update::Alive {}).unwrap(), &b"{\"alive\":{}}\n"[..]);
}
