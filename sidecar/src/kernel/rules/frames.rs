//! Table `netdev podwitness`: drops frames to the API server that do not carry our mark, as a raw socket would send
//! them past the output hook. Linux has an egress hook since 5.16; without it nothing is installed.
//!
//! Invariant: this is a second lock, never the first; every failure is told at debug level and changes nothing else.

use netlink_bindings::rt_link;
use netlink_socket2::{NetlinkSocket, ReplyError};
use podwitness_core::inject;
use tracing::debug;

use super::{
    API_V4, API_V6, EGRESS, Rules, Targets, address_elements,
    batch::{Batch, Hook, SetKind, TableFamily},
    expr::Family,
    is_missing,
};

/// `NF_NETDEV_EGRESS`
const NETDEV_EGRESS: u32 = 1;
/// `IFF_LOOPBACK`
const LOOPBACK: u32 = 1 << 3;
/// Cap on guarded interfaces; a pod has one, with secondary networks a handful.
const MAX_DEVICES: usize = 32;

pub(super) fn install(rules: &Rules, socket: &mut NetlinkSocket, targets: &Targets) {
    match try_install(rules, socket, targets) {
        Ok(()) => debug!("frames to the API server without our mark are dropped"),
        Err(error) => debug!(%error, "this kernel has no egress hook; frames are not filtered"),
    }
}

pub(super) fn refresh(rules: &Rules, socket: &mut NetlinkSocket, targets: &Targets) {
    let mut batch = Batch::new(socket, TableFamily::Netdev, inject::TABLE);
    address_elements(&mut batch, targets);
    match batch.commit(socket) {
        Ok(()) => {}
        Err(error) if is_missing(&error) => install(rules, socket, targets),
        Err(error) => debug!(%error, "addresses of the frame filter are not renewed"),
    }
}

pub(super) fn remove(socket: &mut NetlinkSocket) {
    let mut batch = Batch::new(socket, TableFamily::Netdev, inject::TABLE);
    batch.remove_table();
    if let Err(error) = batch.commit(socket) {
        debug!(%error, "the frame filter is not removed");
    }
}

fn try_install(rules: &Rules, socket: &mut NetlinkSocket, targets: &Targets) -> Result<(), ReplyError> {
    let devices = devices(socket)?;
    let mut batch = Batch::new(socket, TableFamily::Netdev, inject::TABLE);
    batch.replace_table();
    batch.set(API_V4, SetKind::V4, rules.dead_man);
    batch.set(API_V6, SetKind::V6, rules.dead_man);
    address_elements(&mut batch, targets);
    batch.chain(EGRESS, &Hook { kind: "filter", number: NETDEV_EGRESS, priority: 0, devices: &devices });
    for (family, set) in [(Family::V4, API_V4), (Family::V6, API_V6)] {
        batch.rule(EGRESS, |e| {
            e.frame_carries(family).tcp().destination_in(family, set).mark_is_not(rules.mark).drop_it()
        });
    }
    batch.commit(socket)
}

/// Names of the interfaces through which the pod reaches others.
fn devices(socket: &mut NetlinkSocket) -> Result<Vec<String>, ReplyError> {
    let request = rt_link::Request::new().op_getlink_dump(&rt_link::Ifinfomsg::new());
    let mut replies = socket.request(&request)?;
    let mut names = Vec::new();
    while let Some(reply) = replies.recv() {
        let (header, attributes) = reply?;
        let name = attributes.get_ifname()?.to_string_lossy().into_owned();
        if header.ifi_flags & LOOPBACK == 0 && name != inject::INTERFACE && names.len() < MAX_DEVICES {
            names.push(name);
        }
    }
    Ok(names)
}
