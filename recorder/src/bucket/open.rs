//! A bucket out of its settings.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, Certificate, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum},
};
use thiserror::Error;

use super::{Bucket, credentials::Directory};
use crate::config::s3::{Credentials, S3Config};

/// Longest life of one request, of one object whole.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// What a request is tried again by itself: little, because whoever wants it waits and tries again too.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(2),
        base: 2.0,
    },
    max_retries: 2,
    retry_timeout: Duration::from_secs(10),
};

/// Names of settings that the crate has no type for.
const SSE: &str = "aws_server_side_encryption";
const SSE_KEY: &str = "aws_sse_kms_key_id";

/// Settings that make no bucket.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file cannot be read.
    #[error("the root certificates of the bucket cannot be read from {path}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificates, or anything else, cannot be used.
    #[error("the settings of the bucket cannot be used")]
    Settings(#[from] object_store::Error),
}

/// Opens the bucket of `config`. Nothing is asked of it yet.
///
/// # Errors
/// Where the settings cannot be used.
pub fn open(config: &S3Config) -> Result<Bucket, OpenError> {
    let store = build(config)?;
    Ok(Bucket::new(Arc::new(store), &config.prefix))
}

fn build(config: &S3Config) -> Result<AmazonS3, OpenError> {
    let mut options = ClientOptions::new().with_timeout(TIMEOUT).with_connect_timeout(CONNECT);
    if let Some(path) = &config.ca_file {
        let pem = fs::read(path).map_err(|source| OpenError::Roots { path: path.clone(), source })?;
        for root in Certificate::from_pem_bundle(&pem)? {
            options = options.with_root_certificate(root);
        }
        options = options.with_no_system_certificates(true);
    } else {
        // The image has no roots of its own.
        for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            options = options.with_root_certificate(Certificate::from_der(root)?);
        }
    }
    if config.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
        options = options.with_allow_http(true);
    }
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_client_options(options)
        .with_retry(RETRY)
        .with_disable_tagging(true)
        // The bucket checks what it got; one whose objects are locked asks for it.
        .with_checksum_algorithm(Checksum::SHA256)
        .with_virtual_hosted_style_request(!config.path_style);
    if let Some(endpoint) = config.address() {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(sse) = config.sse {
        builder = builder.with_config(SSE.parse()?, sse.as_str());
    }
    if let Some(key) = &config.sse_key {
        builder = builder.with_config(SSE_KEY.parse()?, key);
    }
    Ok(credentials(builder, &config.credentials).build()?)
}

fn credentials(builder: AmazonS3Builder, from: &Credentials) -> AmazonS3Builder {
    match from {
        Credentials::Directory(path) => builder.with_credentials(Arc::new(Directory::new(path.clone()))),
        Credentials::Keys { id, secret, token } => {
            let builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
            token.iter().fold(builder, |builder, token| builder.with_token(token.expose()))
        }
        Credentials::WebIdentity { token_file, role } => builder
            .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, token_file)
            .with_config(AmazonS3ConfigKey::RoleArn, role),
        Credentials::Container { url, token_file } => builder
            .with_config(AmazonS3ConfigKey::ContainerCredentialsFullUri, url)
            .with_config(AmazonS3ConfigKey::ContainerAuthorizationTokenFile, token_file),
    }
}
