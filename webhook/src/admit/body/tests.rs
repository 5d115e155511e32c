use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::*;

fn bodies() -> BodyLimiter {
    BodyLimiter::register(&SharedRegistry::new())
}

fn client(last: u8) -> ReviewClient {
    ReviewClient { connection: ConnectionHandle::uncounted(), source: IpAddr::from([10, 0, 0, last]) }
}

/// A body that sends so many bytes, and then nothing any more.
fn unfinished(bytes: usize) -> Body {
    let piece = Bytes::from(vec![b' '; 64 << 10]);
    let pieces = stream::iter(vec![piece; bytes >> 16]).chain(stream::pending());
    Body::from_stream(pieces.map(Ok::<_, std::io::Error>))
}

#[tokio::test(start_paused = true)]
async fn a_body_has_its_time() {
    let begun = Instant::now();
    let late = bodies().receive(&client(1), unfinished(1 << 20)).await;
    assert!(matches!(late, Err(BodyError::Late)));
    assert_eq!(begun.elapsed(), DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_never_end_keep_no_other_body_out() {
    let bodies = bodies();
    let begun = Instant::now();
    let unfinished = (0..200).map(|n| {
        let bodies = bodies.clone();
        tokio::spawn(async move { bodies.receive(&client(n % 4), unfinished(3 << 20)).await.err() })
    });
    let unfinished: Vec<_> = unfinished.collect();
    tokio::task::yield_now().await;
    for _ in 0..100 {
        let whole = bodies.receive(&client(9), Body::from(vec![b'7'; 64 << 10])).await.unwrap();
        assert_eq!(whole.bytes.len(), 64 << 10);
        assert!(bodies.memory.used() <= BODIES.total);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing was waited for");
    for one in unfinished {
        assert!(one.await.unwrap().is_some());
    }
    assert_eq!(bodies.memory.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_text_that_becomes_much_is_not_parsed() {
    let mut dense = b"[0".to_vec();
    dense.extend(b",0".repeat(1 << 20));
    let refused = bodies().receive(&client(1), Body::from(dense)).await;
    assert!(matches!(refused, Err(BodyError::TooDense)));
    let text = serde_json::json!({"data": ",".repeat(1 << 20)}).to_string();
    assert!(bodies().receive(&client(1), Body::from(text)).await.is_ok(), "what is in a string is no value");
}

/// An API server comes from one address, with hundreds of reviews at a time.
#[tokio::test(start_paused = true)]
async fn reviews_that_are_whole_wait_for_each_other_and_are_all_taken() {
    let bodies = bodies();
    let pod =
        serde_json::json!({"spec": vec![serde_json::json!({"name": "a", "value": [1, 2]}); 400]}).to_string();
    let reviews = (0..600).map(|_| {
        let (bodies, pod) = (bodies.clone(), pod.clone());
        tokio::spawn(async move {
            let body = bodies.receive(&client(1), Body::from(pod)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            body.is_ok()
        })
    });
    for review in reviews.collect::<Vec<_>>() {
        assert!(review.await.unwrap());
    }
    assert_eq!((bodies.memory.used(), bodies.parsed.free()), (0, PARSED.total));
}

#[test]
fn values_are_never_counted_too_low() {
    use serde_json::Value;
    fn all(value: &Value) -> usize {
        match value {
            Value::Array(list) => 1 + list.iter().map(all).sum::<usize>(),
            Value::Object(map) => 1 + map.values().map(|value| 1 + all(value)).sum::<usize>(),
            _ => 1,
        }
    }
    for text in [r#"{}"#, r#"[]"#, "7", r#"{"a":[1,2,{"b":"x\",,{[\\"}],"c":null}"#, r#"["\\",1,[[],[]]]"#] {
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(values(text.as_bytes()) + 1 >= all(&value), "{text}: {}", values(text.as_bytes()));
    }
}
