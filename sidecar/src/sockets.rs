//! Whose a connection of the pod is, and where it really goes, from the kernel's table of its sockets (`proc_net_tcp` of
//! the kernel's documentation): `sl local remote st tx:rx tr:tm retr uid …`, addresses as hexadecimal words in the
//! machine's order.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use podwitness_proxy::Owners;

/// Sockets looked at; whoever stands behind them is not found.
const MAX_SOCKETS: usize = 1 << 16;

/// The sockets of this network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Sockets;

/// One socket of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    uid: u32,
}

impl Sockets {
    /// Where the connection of this process from `port` goes, or is on its way to, whatever it was asked to connect to: a
    /// load balancer in the socket takes another address before there is any packet, and `getpeername(2)` may hide it.
    #[must_use]
    pub fn remote(self, port: u16) -> Option<SocketAddr> {
        let own = rustix::process::geteuid().as_raw();
        find(|row| row.local.port() == port && row.uid == own && row.remote.port() != 0).map(|row| row.remote)
    }
}

impl Owners for Sockets {
    fn uid(&self, client: SocketAddr, original: SocketAddr) -> Option<u32> {
        let (local, remote) = (plain(client), plain(original));
        find(|row| row.local == local && row.remote == remote).map(|row| row.uid)
    }
}

/// The first socket that is wanted.
fn find(wanted: impl Fn(&Row) -> bool) -> Option<Row> {
    // A socket of IPv6 may speak IPv4.
    ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].into_iter().find_map(|table| {
        let lines = BufReader::new(File::open(table).ok()?).lines().map_while(Result::ok);
        lines.skip(1).take(MAX_SOCKETS).filter_map(|line| row(&line)).find(&wanted)
    })
}

fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    let uid = fields.nth(4)?.parse().ok()?;
    Some(Row { local, remote, uid })
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut words = [0_u8; 16];
    for (at, word) in words.chunks_exact_mut(4).zip(0..).take(ip.len() / 8).map(|(slot, n)| (n * 8, slot)) {
        let value = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        word.copy_from_slice(&value.to_ne_bytes());
    }
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(*words.first_chunk::<4>()?)),
        32 => IpAddr::from(Ipv6Addr::from(words)),
        _ => return None,
    };
    Some(plain(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

/// One form for both ways of writing an address of IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_of_this_process_is_its_users() {
        let own = rustix::process::getuid().as_raw();
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect(server).unwrap();
            let from = client.local_addr().unwrap();
            assert_eq!(Sockets.uid(from, server), Some(own), "{listen}");
            assert_eq!(Sockets.uid(from, SocketAddr::new(server.ip(), 1)), None);
            assert_eq!(Sockets.remote(from.port()), Some(server));
        }
    }

    #[test]
    fn a_table_is_read_as_the_kernel_writes_it() {
        let line = "   1: 0100007F:9C40 0100600A:01BB 01 00000000:00000000 00:00000000 00000000  1001        0 12345 1";
        let read = Row {
            local: "127.0.0.1:40000".parse().unwrap(),
            remote: "10.96.0.1:443".parse().unwrap(),
            uid: 1001,
        };
        assert_eq!(row(line), Some(read));
        let mapped = line
            .replace("0100007F", "0000000000000000FFFF00000100007F")
            .replace("0100600A", "0000000000000000FFFF00000100600A");
        assert_eq!(row(&mapped), Some(read));
        for broken in ["", "1:", "1: x:y 0:0", "1: 0100007F:9C40 0100600A:01BB 01", "1: é00007F:9C40 0:0"] {
            assert_eq!(row(broken), None, "{broken}");
        }
    }
}
