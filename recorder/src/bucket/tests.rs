use object_store::memory::InMemory;

use super::{credentials::Directory, *};

fn bucket(prefix: &str) -> (Bucket, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    (Bucket::new(Arc::clone(&store) as Arc<dyn ObjectStore>, prefix), store)
}

#[tokio::test]
async fn an_object_is_put_once_and_stands() {
    let (bucket, _) = bucket("audit/c1");
    assert_eq!(bucket.put("a/b", Bytes::from_static(b"first")).await.unwrap(), Put::Created);
    assert_eq!(bucket.put("a/b", Bytes::from_static(b"second")).await.unwrap(), Put::Exists);
    assert_eq!(bucket.get("a/b", 100).await.unwrap().unwrap(), "first");
    assert_eq!(bucket.get_range("a/b", 1..3).await.unwrap().unwrap(), "ir");
    assert_eq!((bucket.size("a/b").await.unwrap(), bucket.size("a/c").await.unwrap()), (Some(5), None));
    assert_eq!(bucket.get("a/c", 100).await.unwrap(), None);
    assert_eq!(bucket.get("a/b", 4).await.unwrap_err().class(), Class::Conflict);
}

#[tokio::test]
async fn keys_are_listed_below_the_prefix_as_they_were_put() {
    let (bucket, store) = bucket("/audit/");
    for key in ["s/2026/a~1/x", "s/2026/b/y", "s/2025/b/z", "t/x"] {
        assert_eq!(bucket.put(key, Bytes::new()).await.unwrap(), Put::Created);
    }
    let keys = |objects: Vec<Object>| objects.into_iter().map(|object| object.key).collect::<Vec<_>>();
    let all = keys(bucket.list("s", None, 10).await.unwrap());
    assert_eq!(all, ["s/2025/b/z", "s/2026/a~1/x", "s/2026/b/y"]);
    assert_eq!(keys(bucket.list("s", Some("s/2026/a~1/x"), 10).await.unwrap()), ["s/2026/b/y"]);
    assert_eq!(bucket.list("s", None, 1).await.unwrap().len(), 1);
    assert_eq!(bucket.directories("s").await.unwrap(), ["2025", "2026"]);
    assert_eq!(bucket.get(&all[1], 10).await.unwrap().unwrap(), "");
    let raw: Vec<_> = store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    assert!(raw.contains(&"audit/s/2026/a~1/x".to_owned()), "{raw:?}");
}

#[tokio::test(start_paused = true)]
async fn credentials_are_read_again_and_never_printed() {
    use object_store::CredentialProvider as _;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let directory = Directory::new(dir.path().to_owned());
    let error = directory.get_credential().await.unwrap_err();
    assert_eq!(BucketError::new("put", "k", &error).class(), Class::Credentials);
    write("AWS_ACCESS_KEY_ID", "one\n");
    write("AWS_SECRET_ACCESS_KEY", "s3cret\n");
    let first = directory.get_credential().await.unwrap();
    assert_eq!((first.key_id.as_str(), first.secret_key.as_str(), &first.token), ("one", "s3cret", &None));
    write("AWS_ACCESS_KEY_ID", "two");
    write("AWS_SESSION_TOKEN", "token");
    tokio::time::advance(std::time::Duration::from_secs(6)).await;
    let second = directory.get_credential().await.unwrap();
    assert_eq!((second.key_id.as_str(), second.token.as_deref()), ("two", Some("token")));
    assert!(!format!("{directory:?}").contains("s3cret"));
}

/// An answer as the crate hands it on.
fn answered(status: u16, code: &str) -> Error {
    let source = format!(
        "Server returned non-2xx status code: {status} Some Words: <?xml version=\"1.0\"?>\n<Error><Code>{code}</Code></Error>"
    )
    .into();
    match status {
        403 => Error::PermissionDenied { path: "k".to_owned(), source },
        404 => Error::NotFound { path: "k".to_owned(), source },
        _ => Error::Generic { store: "S3", source },
    }
}

#[test]
fn what_a_server_refuses_is_told_by_its_code_where_the_status_misleads() {
    for (status, code, class) in [
        (403, "AccessDenied", Class::Denied),
        (403, "SignatureDoesNotMatch", Class::Denied),
        (400, "ExpiredToken", Class::Denied),
        (400, "AuthorizationHeaderMalformed", Class::Elsewhere),
        (301, "PermanentRedirect", Class::Elsewhere),
        (301, "", Class::Elsewhere),
        (403, "RequestTimeTooSkewed", Class::Clock),
        (501, "NotImplemented", Class::Unsupported),
        (501, "", Class::Unsupported),
        (400, "KMS.DisabledException", Class::Encryption),
        (400, "InvalidRequest", Class::Other),
        (403, "QuotaExceeded", Class::Full),
        (403, "InsufficientStorageSpace", Class::Full),
        (400, "XMinioAdminBucketQuotaExceeded", Class::Full),
        (507, "XMinioStorageFull", Class::Full),
        (507, "", Class::Full),
        (503, "SlowDown", Class::Throttled),
        (500, "InternalError", Class::Server),
        (404, "NoSuchBucket", Class::NoBucket),
    ] {
        let error = BucketError::new("put", "k", &answered(status, code));
        assert_eq!(error.class(), class, "{status} {code}");
        let said = format!("({status} {code})").replace(" )", ")");
        assert!(error.to_string().ends_with(&said), "{error}");
    }
}

/// An answer of S3 with more than its code.
fn refused(status: u16, code: &str, more: &str) -> String {
    let source = format!(
        "Server returned non-2xx status code: {status} Some Words: <?xml version=\"1.0\"?><Error><Code>{code}</Code>{more}</Error>"
    );
    let error = Error::Generic { store: "S3", source: source.into() };
    BucketError::new("put", "k", &error).reason()
}

#[test]
fn a_refusal_says_what_to_change() {
    for (status, code, more, hint) in [
        (400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>", "storage.s3.region"),
        (400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>", ", eu-central-1 (400"),
        (301, "PermanentRedirect", "<Endpoint>audit.s3.eu.example.org</Endpoint>", "audit.s3.eu.example.org"),
        (403, "RequestTimeTooSkewed", "", "clocks"),
        (403, "SignatureDoesNotMatch", "", "AWS_SECRET_ACCESS_KEY"),
        (403, "InvalidAccessKeyId", "", "AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", "", "renew the credentials"),
        (403, "AccessDenied", "", "s3:PutObject"),
        (501, "NotImplemented", "<Header>If-None-Match</Header>", "If-None-Match"),
        (400, "InvalidRequest", "<Message>Object Lock parameters</Message>", "Object Lock"),
        (400, "InvalidArgument", "<Message>Unsupported header 'x-amz-checksum-sha256'</Message>", "a header"),
        (400, "KMS.DisabledException", "", "encryption key"),
    ] {
        let reason = refused(status, code, more);
        assert!(reason.contains(hint) && reason.contains(code), "{status} {code}: {reason}");
    }
}

#[test]
fn of_an_answer_only_names_are_repeated() {
    let long = "x".repeat(200);
    for more in [
        "<Region>a b\n</Region>",
        &format!("<Region>{long}</Region>"),
        "<Region>é</Region>",
        "<Region></Region>",
    ] {
        let reason = refused(400, "AuthorizationHeaderMalformed", more);
        assert!(reason.ends_with("storage.s3.endpoint (400 AuthorizationHeaderMalformed)"), "{reason}");
    }
    assert!(refused(400, &long, "").ends_with("(400)"));
}
