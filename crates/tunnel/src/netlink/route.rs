//! Routes of the main table.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr},
};

use netlink_bindings::rt_route::{IterableRouteAttrs, Request, RtmType, Rtmsg};

use super::{Error, Netlink, inet, inet6};

/// `RT_TABLE_MAIN`.
const MAIN: u8 = 254;
/// `RTPROT_STATIC`: set by an administrator. Marks the routes of ours among those the kernel makes itself.
const STATIC: u8 = 4;

impl Netlink {
    /// Routes a prefix to the interface.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn add_route(&mut self, index: u32, to: Ipv6Addr, length: u8) -> Result<(), Error> {
        let header = Rtmsg { rtm_type: RtmType::Unicast as u8, ..header(length) };
        let mut request = Request::new().set_create().set_replace().op_newroute_do(&header);
        request.encode().push_dst(to.into()).push_oif(index);
        self.change(&request).map_err(|why| Error::new("add route to", &format!("{to}/{length}"), why))
    }

    /// Removes the route of one address to the interface.
    ///
    /// # Errors
    /// Where there is none, or the kernel refuses.
    pub fn delete_host_route(&mut self, index: u32, to: Ipv6Addr) -> Result<(), Error> {
        let mut request = Request::new().op_delroute_do(&header(128));
        request.encode().push_dst(to.into()).push_oif(index);
        self.change(&request).map_err(|why| Error::new("remove route to", &to, why))
    }

    /// The addresses that are routed to the interface one by one, by [`Netlink::add_route`] with length 128.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn host_routes(&mut self, index: u32) -> Result<BTreeSet<Ipv6Addr>, Error> {
        let mut found = BTreeSet::new();
        self.each_route(inet6(), |header, attributes| {
            let ours = header.rtm_protocol == STATIC && header.rtm_dst_len == 128;
            if let (true, Ok(IpAddr::V6(to)), Ok(oif)) = (ours, attributes.get_dst(), attributes.get_oif())
                && oif == index
            {
                found.insert(to);
            }
        })
        .map_err(|why| Error::new("list routes of interface", &index, why))?;
        Ok(found)
    }

    /// Makes the interface's host routes exactly these.
    ///
    /// # Errors
    /// Where the kernel refuses one; those before it are done.
    pub fn set_host_routes(&mut self, index: u32, wanted: &BTreeSet<Ipv6Addr>) -> Result<(), Error> {
        let present = self.host_routes(index)?;
        for gone in present.difference(wanted) {
            self.delete_host_route(index, *gone)?;
        }
        for new in wanted.difference(&present) {
            self.add_route(index, *new, 128)?;
        }
        Ok(())
    }

    /// The least MTU of the default routes of both families; `None` where there is no default route.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn default_route_mtu(&mut self) -> Result<Option<u32>, Error> {
        let mut links = BTreeSet::new();
        let mut least: Option<u32> = None;
        for family in [inet(), inet6()] {
            self.each_route(family, |header, attributes| {
                if header.rtm_dst_len == 0 && header.rtm_type == RtmType::Unicast as u8 {
                    links.extend(outgoing(attributes));
                    let own = attributes.get_metrics().and_then(|metrics| metrics.get_mtu());
                    least = lesser(least, own.ok());
                }
            })
            .map_err(|why| Error::new("list routes of", &"the main table", why))?;
        }
        for index in links {
            least = lesser(least, self.link_by_index(index)?.map(|link| link.mtu));
        }
        Ok(least)
    }

    fn each_route(
        &mut self,
        family: u8,
        mut seen: impl FnMut(&Rtmsg, &IterableRouteAttrs<'_>),
    ) -> io::Result<()> {
        let header = Rtmsg { rtm_family: family, ..Rtmsg::new() };
        let request = Request::new().op_getroute_dump(&header);
        let mut reply = self.socket.request(&request)?;
        while let Some(route) = reply.recv() {
            let (header, attributes) = route?;
            // The filter by table is a wish that older kernels do not hear.
            if header.rtm_table == MAIN {
                seen(&header, &attributes);
            }
        }
        Ok(())
    }
}

fn header(length: u8) -> Rtmsg {
    Rtmsg { rtm_family: inet6(), rtm_dst_len: length, rtm_table: MAIN, rtm_protocol: STATIC, ..Rtmsg::new() }
}

/// The link that a route leaves by; of a route with several next hops the first.
fn outgoing(attributes: &IterableRouteAttrs<'_>) -> Option<u32> {
    attributes.get_oif().ok().or_else(|| {
        // struct rtnexthop: length (2), flags (1), hops (1), interface (4).
        let first = attributes.get_multipath().ok()?.get(4..8)?;
        Some(u32::from_ne_bytes(first.try_into().ok()?))
    })
}

fn lesser(first: Option<u32>, second: Option<u32>) -> Option<u32> {
    first.into_iter().chain(second).filter(|mtu| *mtu > 0).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_mtu_does_not_count_as_the_least() {
        assert_eq!(lesser(Some(1500), Some(0)), Some(1500));
        assert_eq!(lesser(None, Some(1450)), Some(1450));
        assert_eq!(lesser(None, None), None);
    }

    #[test]
    fn the_routing_table_can_be_read_without_privilege() {
        assert!(Netlink::new().default_route_mtu().is_ok());
    }
}
