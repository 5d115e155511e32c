//! The pod's network rules: one nftables table `inet podwitness`, written in one netlink transaction.
//!
//! ```text
//! inbound nat  -101  ports of ours on the pod's address  keep the destination, too
//! output  nat  -101  our mark and uid            keep the destination: ends translation, no mesh can loop it
//!                    API server's address . port  dnat to our loopback listener
//!                    API server's own port, outside the pod  dnat to our loopback listener
//! egress  filter  0  from our listener, SYN-ACK, not our mark  drop
//!                    oifname podwitness0, not our mark         drop
//!                    a port that is held, new, not our mark    drop
//! ingress filter  0  iifname podwitness0, not established      drop
//! transit filter  0  in or out of podwitness0                  drop
//! arrival nat  -101  a port of ours that somebody else holds   dnat to the one that we have instead; only where there
//!                                                              is such a port, and in output for what leaves by lo
//! ```
//!
//! A mesh redirects what comes to the pod as well: metrics and the kubelet's probe of the sidecar stay reachable past it.
//!
//! Invariants: other tables are never touched; a second installation replaces the first without a gap; where
//! `dead_man` is set, elements that nobody renews vanish, so that a dead sidecar opens instead of refusing.
//! No other socket on the listener's port ends a handshake, whatever program has bound it after our death: a mark takes a
//! capability that no other container has. What a raw socket sends never meets the output hook; room `frames` closes that where the kernel can.

mod batch;
mod expr;
mod frames;
mod targets;

use std::{net::SocketAddr, time::Duration};

use netlink_socket2::{NetlinkSocket, ReplyError};
use podwitness_core::inject;
use thiserror::Error;

use batch::{Batch, Hook, SetKind, TableFamily, key};
use expr::Family;

pub use targets::{MAX_ADDRESSES, MAX_PORTS, Targets};

const INBOUND: &str = "inbound";
const OUTPUT: &str = "output";
const EGRESS: &str = "egress";
const INGRESS: &str = "ingress";
const TRANSIT: &str = "transit";
const ARRIVAL: &str = "arrival";
const API_V4: &str = "api4";
const API_V6: &str = "api6";
const PORTS: &str = "ports";
const HELD: &str = "held";
const OWN: &str = "own";
const LOOPBACK: &str = "lo";

/// One before the priority of everyone else's destination NAT (`NF_IP_PRI_NAT_DST`).
const BEFORE_OTHERS: i32 = -101;
/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`, `NF_INET_LOCAL_OUT`.
const PRE_ROUTING: u32 = 0;
const LOCAL_IN: u32 = 1;
const FORWARD: u32 = 2;
const LOCAL_OUT: u32 = 3;
/// `ENOENT`
const NOT_FOUND: i32 = 2;

/// The rules of one pod, without the addresses that change.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Mark of our own connections, drawn at each start.
    pub mark: u32,
    /// Our own user id.
    pub uid: u32,
    /// Port of our listener on both loopback addresses.
    pub listener: u16,
    /// After how long an unrenewed redirect opens; never if `None`.
    pub dead_man: Option<Duration>,
    /// Ports at which we are looked for and somebody else listens.
    pub moved: Vec<MovedPort>,
}

/// A port of ours that somebody else holds, and the one on which we listen instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MovedPort {
    /// Where we are looked for.
    pub from: u16,
    /// Where we listen.
    pub to: u16,
}

/// Rules that the kernel did not take.
#[derive(Debug, Error)]
pub enum RulesError {
    /// The tables of address family `inet` are not to be had.
    #[error(
        "the kernel refuses table inet podwitness: it takes CAP_NET_ADMIN and a kernel (Linux 5.2 or later) whose \
         node can load nf_tables and nft_chain_nat; gVisor and some managed nodes cannot, use \
         podwitness.dev/profile=restricted there"
    )]
    Refused(#[source] ReplyError),
    /// A change of addresses was refused.
    #[error("the kernel refuses new elements of table inet podwitness")]
    Elements(#[source] ReplyError),
    /// The table could not be removed.
    #[error("the kernel does not remove table inet podwitness")]
    Remove(#[source] ReplyError),
}

/// What a refresh found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refreshed {
    /// The table was there.
    Renewed,
    /// The table had been removed.
    PutBack,
}

impl Rules {
    /// Puts the rules in place, instead of any that an earlier start left.
    ///
    /// # Errors
    /// Where the kernel refuses; nothing is changed then.
    pub fn install(&self, socket: &mut NetlinkSocket, targets: &Targets) -> Result<(), RulesError> {
        let mut batch = Batch::new(socket, TableFamily::Inet, inject::TABLE);
        batch.replace_table();
        self.sets(&mut batch);
        elements(&mut batch, targets);
        self.redirect(&mut batch);
        self.lead_on(&mut batch);
        self.guard(&mut batch);
        batch.commit(socket).map_err(RulesError::Refused)?;
        frames::install(self, socket, targets);
        Ok(())
    }

    /// Renews the elements or changes them; puts everything back if the table was removed, and says whether it was.
    ///
    /// # Errors
    /// Where the kernel refuses; nothing is changed then.
    pub fn refresh(&self, socket: &mut NetlinkSocket, targets: &Targets) -> Result<Refreshed, RulesError> {
        let mut batch = Batch::new(socket, TableFamily::Inet, inject::TABLE);
        elements(&mut batch, targets);
        match batch.commit(socket) {
            Ok(()) => frames::refresh(self, socket, targets),
            Err(error) if is_missing(&error) => {
                self.install(socket, targets)?;
                return Ok(Refreshed::PutBack);
            }
            Err(error) => return Err(RulesError::Elements(error)),
        }
        Ok(Refreshed::Renewed)
    }

    /// Takes the rules away.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn remove(socket: &mut NetlinkSocket) -> Result<(), RulesError> {
        frames::remove(socket);
        let mut batch = Batch::new(socket, TableFamily::Inet, inject::TABLE);
        batch.remove_table();
        batch.commit(socket).map_err(RulesError::Remove)
    }

    fn sets(&self, batch: &mut Batch) {
        batch.set(API_V4, SetKind::V4, self.dead_man);
        batch.set(API_V6, SetKind::V6, self.dead_man);
        batch.set(PORTS, SetKind::Port, self.dead_man);
        batch.set(HELD, SetKind::HeldPort, self.dead_man);
        batch.set(OWN, SetKind::OwnPort, None);
    }

    fn redirect(&self, batch: &mut Batch) {
        batch.chain(
            INBOUND,
            &Hook { kind: "nat", number: PRE_ROUTING, priority: BEFORE_OTHERS, devices: &[] },
        );
        for family in [Family::V4, Family::V6] {
            batch.rule(INBOUND, |e| e.family_is(family).tcp().port_in(OWN).keep_destination(family));
        }
        batch.chain(OUTPUT, &Hook { kind: "nat", number: LOCAL_OUT, priority: BEFORE_OTHERS, devices: &[] });
        for family in [Family::V4, Family::V6] {
            batch.rule(OUTPUT, |e| {
                e.mark_is(self.mark).uid_is(self.uid).family_is(family).keep_destination(family)
            });
        }
        for (family, set) in [(Family::V4, API_V4), (Family::V6, API_V6)] {
            let to = SocketAddr::new(family.loopback(), self.listener);
            batch.rule(OUTPUT, |e| e.family_is(family).tcp().destination_in(family, set).redirect_to(to));
            batch.rule(OUTPUT, |e| {
                e.family_is(family).leaves_not_by(LOOPBACK).tcp().port_in(PORTS).redirect_to(to)
            });
        }
    }

    /// What comes from outside is to find us, and what the pod's own programs send to us.
    fn lead_on(&self, batch: &mut Batch) {
        if self.moved.is_empty() {
            return;
        }
        batch.chain(
            ARRIVAL,
            &Hook { kind: "nat", number: PRE_ROUTING, priority: BEFORE_OTHERS, devices: &[] },
        );
        for MovedPort { from, to } in &self.moved {
            batch.rule(ARRIVAL, |e| e.tcp().port_is(*from).port_to(*to));
            batch.rule(OUTPUT, |e| e.leaves_by(LOOPBACK).tcp().port_is(*from).port_to(*to));
        }
    }

    fn guard(&self, batch: &mut Batch) {
        let filter = |number| Hook { kind: "filter", number, priority: 0, devices: &[] };
        batch.chain(EGRESS, &filter(LOCAL_OUT));
        for family in [Family::V4, Family::V6] {
            let listener = SocketAddr::new(family.loopback(), self.listener);
            batch.rule(EGRESS, |e| {
                e.family_is(family).tcp().comes_from(listener).accepts().mark_is_not(self.mark).drop_it()
            });
        }
        batch.rule(EGRESS, |e| e.leaves_by(inject::INTERFACE).mark_is_not(self.mark).drop_it());
        // What is redirected has another destination by now.
        batch.rule(EGRESS, |e| {
            let e = e.leaves_not_by(LOOPBACK).mark_is_not(self.mark).unsolicited();
            e.tcp().port_in(HELD).drop_it()
        });
        batch.chain(INGRESS, &filter(LOCAL_IN));
        batch.rule(INGRESS, |e| e.comes_by(inject::INTERFACE).unsolicited().drop_it());
        batch.chain(TRANSIT, &filter(FORWARD));
        batch.rule(TRANSIT, |e| e.comes_by(inject::INTERFACE).drop_it());
        batch.rule(TRANSIT, |e| e.leaves_by(inject::INTERFACE).drop_it());
    }
}

fn elements(batch: &mut Batch, targets: &Targets) {
    address_elements(batch, targets);
    let ports: Vec<_> = targets.ports.iter().map(|port| port.to_be_bytes().to_vec()).collect();
    batch.elements(PORTS, ports.into_iter());
    let held: Vec<_> = targets.held.iter().map(|port| port.to_be_bytes().to_vec()).collect();
    batch.elements(HELD, held.into_iter());
    let own = [inject::ADMIN_PORT, inject::PROBE_PORT].map(|port| port.to_be_bytes().to_vec());
    batch.elements(OWN, own.into_iter());
}

fn address_elements(batch: &mut Batch, targets: &Targets) {
    let v4: Vec<_> = targets.v4.iter().map(|(ip, port)| key(&ip.octets(), *port)).collect();
    let v6: Vec<_> = targets.v6.iter().map(|(ip, port)| key(&ip.octets(), *port)).collect();
    batch.elements(API_V4, v4.into_iter());
    batch.elements(API_V6, v6.into_iter());
}

fn is_missing(error: &ReplyError) -> bool {
    error.as_io_error().raw_os_error() == Some(NOT_FOUND)
}
