//! Links: interfaces of any kind.

use std::io;

use netlink_bindings::rt_link::{IfinfoFlags, Ifinfomsg, Request};
use rustix::io::Errno;

use super::{Error, Netlink};

/// What is known of an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl Netlink {
    /// The interface of that name, if there is one.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut request = Request::new().op_getlink_do(&Ifinfomsg::new());
        request.encode().push_ifname_bytes(name.as_bytes());
        self.one_link(&request).map_err(|why| Error::new("look up interface", &name, why))
    }

    /// The interface of that number, if there is one.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let request = Request::new().op_getlink_do(&of(index));
        self.one_link(&request).map_err(|why| Error::new("look up interface", &index, why))
    }

    /// Creates an interface of the kernel's WireGuard.
    ///
    /// # Errors
    /// Where the kernel has no WireGuard (`EOPNOTSUPP`), the name is taken, or the capability is missing.
    pub fn add_wireguard(&mut self, name: &str) -> Result<(), Error> {
        let mut request = Request::new().set_create().set_excl().op_newlink_do(&Ifinfomsg::new());
        request
            .encode()
            .push_ifname_bytes(name.as_bytes())
            .nested_linkinfo()
            .push_kind(c"wireguard")
            .end_nested();
        self.change(&request).map_err(|why| Error::new("create WireGuard interface", &name, why))
    }

    /// Sets the MTU and brings the interface up.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn bring_up(&mut self, index: u32, mtu: u16) -> Result<(), Error> {
        let up = IfinfoFlags::Up as u32;
        let mut request =
            Request::new().op_setlink_do(&Ifinfomsg { ifi_flags: up, ifi_change: up, ..of(index) });
        request.encode().push_mtu(u32::from(mtu));
        self.change(&request).map_err(|why| Error::new("bring up interface", &index, why))
    }

    /// Removes the interface of that name, if there is one.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let mut request = Request::new().op_dellink_do(&Ifinfomsg::new());
        request.encode().push_ifname_bytes(name.as_bytes());
        match self.change(&request) {
            Err(error) if !is(&error, Errno::NODEV) => Err(Error::new("remove interface", &name, error)),
            _ => Ok(()),
        }
    }

    fn one_link(&mut self, request: &netlink_bindings::rt_link::OpGetlinkDo<'_>) -> io::Result<Option<Link>> {
        let mut reply = self.socket.request(request)?;
        match reply.recv_one() {
            Ok((header, attributes)) => {
                let mtu = attributes.get_mtu().map_err(io::Error::other)?;
                Ok(Some(Link { index: header.ifi_index.unsigned_abs(), mtu }))
            }
            Err(error) if is(error.as_io_error(), Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn of(index: u32) -> Ifinfomsg {
    Ifinfomsg { ifi_index: index.cast_signed(), ..Ifinfomsg::new() }
}

fn is(error: &io::Error, number: Errno) -> bool {
    error.raw_os_error() == Some(number.raw_os_error())
}
