//! Addresses of interfaces.

use std::net::Ipv6Addr;

use netlink_bindings::rt_addr::{IfaFlags, Ifaddrmsg, Request};

use super::{Error, Netlink, inet6};

impl Netlink {
    /// Gives an interface the address, as a /128 that is usable at once (no duplicate address detection) and brings no
    /// route with it.
    ///
    /// # Errors
    /// Where the kernel refuses, as it does where IPv6 is switched off.
    pub fn add_address(&mut self, index: u32, address: Ipv6Addr) -> Result<(), Error> {
        let header =
            Ifaddrmsg { ifa_family: inet6(), ifa_index: index, ifa_prefixlen: 128, ..Ifaddrmsg::new() };
        let mut request = Request::new().set_create().set_replace().op_newaddr_do(&header);
        let flags = IfaFlags::Nodad as u32 | IfaFlags::Noprefixroute as u32;
        request.encode().push_local(address.into()).push_flags(flags);
        self.change(&request).map_err(|why| Error::new("add address", &address, why))
    }
}
