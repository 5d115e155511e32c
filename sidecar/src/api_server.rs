//! The API server as the kubelet names it in every container: an address, or on some clusters a DNS name.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use podwitness_core::inject::ApiServerAddresses;
use thiserror::Error;
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};

/// One question to DNS.
const QUESTION: Duration = Duration::from_secs(2);
/// Questions before the start is given up; the kubelet then starts us again.
const QUESTIONS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiServer {
    /// An address, or a name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The API server's name has no address.
#[derive(Debug, Error)]
#[error("cannot resolve KUBERNETES_SERVICE_HOST {host:?}; does DNS work on this node?")]
pub struct ResolveError {
    host: String,
    #[source]
    source: io::Error,
}

impl ApiServer {
    /// Whether it is a name. The kubelet gives one only where the cluster is set up so; a Service's variables hold an
    /// address, also those of a Service `kubernetes` in the pod's own namespace, which take the place of the API
    /// server's.
    #[must_use]
    pub fn is_name(&self) -> bool {
        self.host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
    }

    /// What is known before there is a netmap: what admission has stamped, and behind it what the kubelet gives, if
    /// that is a name or nothing is stamped.
    ///
    /// # Errors
    /// Where nothing is stamped and a name has no address after several questions.
    pub async fn own(&self, stamped: &ApiServerAddresses) -> Result<Vec<SocketAddr>, ResolveError> {
        let known: Vec<SocketAddr> = stamped.service.iter().chain(&stamped.endpoints).copied().collect();
        if known.is_empty() {
            return self.resolve().await;
        }
        if !self.is_name() {
            return Ok(known);
        }
        match self.ask().await {
            Ok(named) => Ok([known, named].concat()),
            Err(error) => {
                tracing::warn!(host = self.host, %error, "KUBERNETES_SERVICE_HOST is not found; its addresses are not known");
                Ok(known)
            }
        }
    }

    /// The addresses, at least one. Only a name is asked for.
    ///
    /// # Errors
    /// Where a name has no address after several questions.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        if let Ok(ip) = self.host.trim_matches(['[', ']']).parse() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let mut asked = 0;
        loop {
            asked += 1;
            match self.ask().await {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) if asked < QUESTIONS => {}
                Err(_) if asked < QUESTIONS => {}
                outcome => {
                    let source = outcome.err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
                    return Err(ResolveError { host: self.host.clone(), source });
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask(&self) -> io::Result<Vec<SocketAddr>> {
        let answer = timeout(QUESTION, lookup_host((self.host.as_str(), self.port))).await;
        answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(Iterator::collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_of_either_family_is_taken_as_it_is() {
        for (host, expected) in
            [("10.96.0.1", "10.96.0.1:443"), ("fd00::1", "[fd00::1]:443"), ("[fd00::1]", "[fd00::1]:443")]
        {
            let addresses = ApiServer { host: host.into(), port: 443 }.resolve().await.unwrap();
            assert_eq!(addresses, [expected.parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn what_admission_stamped_goes_before_what_a_service_of_the_pods_namespace_could_be() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let stamped = ApiServerAddresses {
            service: vec![at("10.96.0.1:443"), at("[fd00::1]:443")],
            endpoints: vec![at("172.18.0.2:6443")],
        };
        let all = [at("10.96.0.1:443"), at("[fd00::1]:443"), at("172.18.0.2:6443")];
        let of = |host: &str| ApiServer { host: host.into(), port: 443 };
        assert_eq!(of("10.96.66.6").own(&stamped).await.unwrap(), all);
        assert_eq!(of("nowhere.invalid").own(&stamped).await.unwrap(), all);
        assert_eq!(
            of("10.96.66.6").own(&ApiServerAddresses::default()).await.unwrap(),
            [at("10.96.66.6:443")]
        );
        let named = of("localhost").own(&stamped).await.unwrap();
        assert_eq!(named[..3], all);
        assert!(named.len() > 3 && named[3].ip().is_loopback());
    }

    #[tokio::test]
    async fn a_name_is_resolved() {
        let addresses = ApiServer { host: "localhost".into(), port: 6443 }.resolve().await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 6443));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_address_is_an_error_that_names_it() {
        let error = ApiServer { host: "nowhere.invalid".into(), port: 443 }.resolve().await.unwrap_err();
        assert!(error.to_string().contains("nowhere.invalid"));
    }
}
