//! A bad network: a UDP relay between a sidecar and its recorder that loses datagrams and keeps copies.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::net::UdpSocket;

/// A relay on its own port in front of `target`.
pub struct Relay {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Relay {
    /// Starts a relay that loses about `loss` of 1000 datagrams either way.
    pub async fn start(at: SocketAddr, target: SocketAddr, loss: u32) -> Self {
        let near = UdpSocket::bind(at).await.unwrap();
        let far = UdpSocket::bind(SocketAddr::new(at.ip(), 0)).await.unwrap();
        let address = near.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(carry(near, far, target, loss, Arc::clone(&seen)));
        Self { address, seen }
    }

    /// The handshake initiations that came from the sidecar so far.
    pub fn initiations(&self) -> Vec<Vec<u8>> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|datagram| datagram.first() == Some(&1)).cloned().collect()
    }
}

async fn carry(
    near: UdpSocket,
    far: UdpSocket,
    target: SocketAddr,
    loss: u32,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
) {
    let (mut out, mut back) = (vec![0; 65536], vec![0; 65536]);
    let mut chance = Chance(0x9e37_79b9);
    let mut client = None;
    loop {
        tokio::select! {
            Ok((length, from)) = near.recv_from(&mut out) => {
                client = Some(from);
                let datagram = &out[..length];
                if datagram.first() == Some(&1) {
                    seen.lock().unwrap().push(datagram.to_vec());
                }
                if chance.of_thousand() >= loss {
                    let _ = far.send_to(datagram, target).await;
                }
            }
            Ok((length, _)) = far.recv_from(&mut back) => {
                if let (Some(client), true) = (client, chance.of_thousand() >= loss) {
                    let _ = near.send_to(&back[..length], client).await;
                }
            }
        }
    }
}

/// The same chance in every run (xorshift).
struct Chance(u32);

impl Chance {
    fn of_thousand(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % 1000
    }
}
