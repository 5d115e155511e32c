use super::{super::IngestConfig, *};
use podwitness_runtime::config::Mistakes;

fn read(pairs: &[(&str, &str)]) -> Result<Option<S3Config>, Mistakes> {
    let env = |name: &str| {
        let plain = ("PODWITNESS_LISTEN_PLAIN", "127.0.0.1:0");
        let found = pairs.iter().chain([&plain]).find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    IngestConfig::read(&env).map(|config| config.common.s3)
}

const KEYS: [(&str, &str); 3] =
    [("PODWITNESS_S3_BUCKET", "audit"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "s3cret")];

#[test]
fn without_a_bucket_there_is_none() {
    assert_eq!(read(&[("AWS_ACCESS_KEY_ID", "id")]), Ok(None));
    let endpoint = read(&[("PODWITNESS_S3_ENDPOINT", "s3.example.org")]);
    assert!(endpoint.unwrap_err().to_string().contains("PODWITNESS_S3_BUCKET"));
}

#[test]
fn a_bucket_at_aws_needs_a_name_and_credentials_only() {
    let config = read(&KEYS).unwrap().unwrap();
    assert_eq!((config.address(), config.path_style, config.region.as_str()), (None, false, "us-east-1"));
    assert_eq!(config.keep, Some(KEEP));
    assert!(!format!("{config:?}").contains("s3cret"));
    let error = read(&KEYS[..1]).unwrap_err().to_string();
    assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
}

#[test]
fn an_endpoint_is_a_host_or_a_url() {
    let address = |endpoint: &'static str, path_style: &'static str| {
        let more = [("PODWITNESS_S3_ENDPOINT", endpoint), ("PODWITNESS_S3_PATH_STYLE", path_style)];
        read(&[&KEYS[..], &more].concat()).unwrap().unwrap().address().unwrap()
    };
    assert_eq!(address("s3.example.org", ""), "https://s3.example.org");
    assert_eq!(address("http://127.0.0.1:9000/", "true"), "http://127.0.0.1:9000");
    assert_eq!(address("https://s3.example.org", "false"), "https://audit.s3.example.org");
    for wrong in ["ftp://host", "https://", "https://user:pw@host", "https://host/?q", "a b"] {
        assert!(read(&[&KEYS[..], &[("PODWITNESS_S3_ENDPOINT", wrong)]].concat()).is_err(), "{wrong}");
    }
}

#[test]
fn credentials_come_from_a_directory_an_identity_or_keys() {
    let bucket = KEYS[0];
    let of = |more: &[(&'static str, &'static str)]| {
        read(&[&[bucket], more].concat()).unwrap().unwrap().credentials
    };
    assert_eq!(of(&[("PODWITNESS_S3_CREDENTIALS_DIR", "/c")]), Credentials::Directory("/c".into()));
    let web = of(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:r")]);
    assert_eq!(web, Credentials::WebIdentity { token_file: "/t".into(), role: "arn:r".into() });
    let keys = of(&[KEYS[1], KEYS[2], ("AWS_ROLE_ARN", "arn:r")]);
    assert!(matches!(keys, Credentials::Keys { token: None, .. }));
}

#[test]
fn the_rest_is_checked() {
    for (name, wrong) in [
        ("PODWITNESS_S3_BUCKET", "a/b"),
        ("PODWITNESS_S3_PREFIX", "../x"),
        ("PODWITNESS_S3_SSE", "rot13"),
        ("PODWITNESS_S3_PATH_STYLE", "yes"),
        ("PODWITNESS_S3_KEEP_LOCAL", "long"),
    ] {
        let error = read(&[&[(name, wrong)], &KEYS[..]].concat()).unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains(wrong), "{error}");
    }
    let more = [
        ("PODWITNESS_S3_PREFIX", "/a/b/"),
        ("PODWITNESS_S3_SSE", "aws:kms"),
        ("PODWITNESS_S3_SSE_KMS_KEY", "arn:k"),
        ("PODWITNESS_S3_KEEP_LOCAL", "forever"),
    ];
    let config = read(&[&KEYS[..], &more].concat()).unwrap().unwrap();
    assert_eq!((config.prefix.as_str(), config.sse, config.keep), ("a/b", Some(Sse::Kms), None));
    assert_eq!(config.sse_key.as_deref(), Some("arn:k"));
}
