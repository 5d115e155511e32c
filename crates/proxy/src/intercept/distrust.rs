//! Clients that do not take our certificate, in namespaces where interception steps aside rather than break something:
//! for a while their connections pass raw. Where a grant fails closed nothing steps aside.
//!
//! What passes is no wider than what was refused: connections of the same user to the same address and port, for the same
//! server name, by a program that speaks TLS in the same way. Another program of that user, another server, or another
//! name of this one is terminated until it refuses the certificate itself.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use moka::future::Cache;
use podwitness_core::inject::Inject;
use podwitness_wire::hello::{ClientHello, HelloShape};
use rustls::{AlertDescription, Error};
use tokio::task::spawn_blocking;

use crate::dial::Owners;

/// How long interception steps aside.
const TIME: Duration = Duration::from_secs(600);
/// Distrusting clients remembered; the least used give way.
const MAX_CLIENTS: u64 = 256;
/// Longest name of a host (RFC 1035 §2.3.4); interception steps aside for no longer one.
const MAX_NAME: usize = 253;

/// Clients of the pod that do not take our certificate.
pub(crate) struct Distrust {
    clients: Option<Cache<Client, ()>>,
    owners: Arc<dyn Owners>,
}

/// The ends of an intercepted connection.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    /// Where the client is.
    pub(super) client: SocketAddr,
    /// Where it wanted to go.
    pub(super) original: SocketAddr,
    /// Where that really is.
    pub(super) to: SocketAddr,
}

/// A program of a user, and the server with which it speaks.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Client {
    uid: u32,
    conversation: Conversation,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Conversation {
    to: SocketAddr,
    server_name: Option<String>,
    shape: HelloShape,
}

impl Conversation {
    fn new(to: SocketAddr, hello: &ClientHello) -> Option<Self> {
        let fits = hello.server_name.as_ref().is_none_or(|name| name.len() <= MAX_NAME);
        fits.then(|| Self { to, server_name: hello.server_name.clone(), shape: hello.shape })
    }
}

impl Distrust {
    pub(crate) fn new(inject: Inject, owners: Arc<dyn Owners>) -> Self {
        let clients = (inject == Inject::Optional)
            .then(|| Cache::builder().max_capacity(MAX_CLIENTS).time_to_live(TIME).build());
        Self { clients, owners }
    }

    /// Whether interception steps aside for this connection.
    pub(super) async fn covers(&self, ends: Ends, hello: &ClientHello) -> bool {
        let Some(clients) = &self.clients else { return false };
        let Some(conversation) = Conversation::new(ends.to, hello) else { return false };
        // To find out whose a connection is takes a look at every socket of the pod.
        if !clients.iter().any(|(client, ())| client.conversation == conversation) {
            return false;
        }
        let uid = self.owner(ends).await;
        uid.is_some_and(|uid| clients.contains_key(&Client { uid, conversation }))
    }

    /// Whose a connection is. The kernel's tables may have tens of thousands of sockets, and are read elsewhere than where
    /// connections are served.
    async fn owner(&self, ends: Ends) -> Option<u32> {
        let owners = Arc::clone(&self.owners);
        // It fails only where the runtime is going down.
        spawn_blocking(move || owners.uid(ends.client, ends.original)).await.ok().flatten()
    }

    /// A handshake has failed. Gives the user for whose program interception steps aside from now on.
    pub(super) async fn note(&self, ends: Ends, hello: &ClientHello, error: &io::Error) -> Option<u32> {
        let clients = self.clients.as_ref().filter(|_| is_distrust(error))?;
        let conversation = Conversation::new(ends.to, hello)?;
        let uid = self.owner(ends).await?;
        clients.insert(Client { uid, conversation }, ()).await;
        Some(uid)
    }
}

/// What OpenSSL, Go, Java and rustls say of a certificate whose issuer they do not know, or that does not bear the name
/// that they ask for.
pub(super) fn is_distrust(error: &io::Error) -> bool {
    let alert = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(
        alert,
        Some(Error::AlertReceived(
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
        ))
    )
}

#[cfg(test)]
mod tests {
    use podwitness_wire::hello::HelloReader;

    use super::*;

    /// Connections from a port are those of the user with that number.
    struct ByPort;

    impl Owners for ByPort {
        fn uid(&self, client: SocketAddr, _: SocketAddr) -> Option<u32> {
            Some(client.port().into()).filter(|uid| *uid != 0)
        }
    }

    fn ends(user: u16, to: &str) -> Ends {
        let to = to.parse().unwrap();
        Ends { client: ([127, 0, 0, 1], user).into(), original: to, to }
    }

    /// A ClientHello with this server name, by a program that offers these cipher suites.
    fn hello(name: &str, suites: &[u8]) -> ClientHello {
        let counted = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let names = counted(&[&[0][..], &counted(name.as_bytes())].concat());
        let extension = [&[0, 0][..], &counted(&names)].concat();
        let body = [&[3, 3][..], &[7; 32], &[0], &counted(suites), &[1, 0], &counted(&extension)].concat();
        let message = [&[1, 0][..], &counted(&body)].concat();
        let record = [&[22, 3, 1][..], &counted(&message)].concat();
        HelloReader::new().read(&record).unwrap().unwrap()
    }

    fn refusal(alert: AlertDescription) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, Error::AlertReceived(alert))
    }

    const TO: &str = "10.96.0.1:443";
    const SUITES: &[u8] = &[0x13, 1, 0x13, 2];

    async fn distrusting(inject: Inject) -> Distrust {
        let distrust = Distrust::new(inject, Arc::new(ByPort));
        let error = refusal(AlertDescription::UnknownCA);
        distrust.note(ends(1000, TO), &hello("kubernetes", SUITES), &error).await;
        distrust
    }

    #[tokio::test]
    async fn what_passes_is_no_wider_than_what_was_refused() {
        let distrust = distrusting(Inject::Optional).await;
        let refused = hello("kubernetes", SUITES);
        assert!(distrust.covers(ends(1000, TO), &refused).await);
        assert!(!distrust.covers(ends(1001, TO), &refused).await, "another user");
        assert!(!distrust.covers(ends(0, TO), &refused).await, "a user who is not known");
        assert!(!distrust.covers(ends(1000, "10.96.0.2:443"), &refused).await, "another server");
        assert!(!distrust.covers(ends(1000, "10.96.0.1:6443"), &refused).await, "another port");
        assert!(!distrust.covers(ends(1000, TO), &hello("kubernetes.default", SUITES)).await, "another name");
        assert!(
            !distrust.covers(ends(1000, TO), &hello("kubernetes", &SUITES[..2])).await,
            "another program"
        );
        assert!(
            !distrust.covers(ends(1000, TO), &ClientHello { server_name: None, ..refused }).await,
            "no name"
        );
    }

    #[tokio::test]
    async fn where_injection_is_required_nothing_steps_aside() {
        let distrust = distrusting(Inject::Required).await;
        assert!(!distrust.covers(ends(1000, TO), &hello("kubernetes", SUITES)).await);
    }

    #[tokio::test]
    async fn only_a_certificate_that_is_refused_makes_interception_step_aside() {
        let distrust = Distrust::new(Inject::Optional, Arc::new(ByPort));
        let hello = hello("kubernetes", SUITES);
        for error in [
            refusal(AlertDescription::HandshakeFailure),
            refusal(AlertDescription::ProtocolVersion),
            io::ErrorKind::UnexpectedEof.into(),
        ] {
            assert_eq!(distrust.note(ends(1000, TO), &hello, &error).await, None, "{error}");
        }
        let error = refusal(AlertDescription::BadCertificate);
        assert_eq!(distrust.note(ends(1000, TO), &hello, &error).await, Some(1000));
        assert_eq!(distrust.note(ends(0, TO), &hello, &error).await, None);
    }

    #[tokio::test]
    async fn so_many_clients_are_remembered_and_no_endless_name() {
        let distrust = Distrust::new(Inject::Optional, Arc::new(ByPort));
        let error = refusal(AlertDescription::UnknownCA);
        let endless = hello(&"a".repeat(300), SUITES);
        assert_eq!(distrust.note(ends(1000, TO), &endless, &error).await, None);
        assert!(!distrust.covers(ends(1000, TO), &endless).await);
        for port in 1..2000 {
            distrust.note(ends(port, TO), &hello("kubernetes", SUITES), &error).await;
        }
        let clients = distrust.clients.unwrap();
        clients.run_pending_tasks().await;
        assert!(clients.entry_count() <= MAX_CLIENTS);
    }

    /// Says whose every connection is, unless it is asked on the thread of the runtime.
    struct Elsewhere(std::thread::ThreadId);

    impl Owners for Elsewhere {
        fn uid(&self, _: SocketAddr, _: SocketAddr) -> Option<u32> {
            (std::thread::current().id() != self.0).then_some(1000)
        }
    }

    #[tokio::test]
    async fn the_tables_of_the_kernel_are_read_on_a_thread_for_that() {
        let distrust = Distrust::new(Inject::Optional, Arc::new(Elsewhere(std::thread::current().id())));
        let (hello, error) = (hello("kubernetes", SUITES), refusal(AlertDescription::UnknownCA));
        assert_eq!(distrust.note(ends(1000, TO), &hello, &error).await, Some(1000));
        assert!(distrust.covers(ends(1000, TO), &hello).await);
    }
}
