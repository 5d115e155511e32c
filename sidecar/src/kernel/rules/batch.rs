//! One transaction of nf_tables: all of its messages take effect together or none does.
//!
//! Invariant: a batch stays below [`MAX_MESSAGES`] messages, because the reply reader counts acknowledgements in one
//! machine word. Sizes of what varies are capped by [`super::Targets`].

use std::{io, time::Duration};

use netlink_bindings::{
    nftables::{Chained, ChainedFinal, Nfgenmsg, SetFlags},
    traits::{LookupFn, NetlinkChained},
};
use netlink_socket2::{NetlinkSocket, ReplyError};

use super::expr::Expr;

/// Messages that one batch may have.
const MAX_MESSAGES: u32 = 60;
/// `NFNL_SUBSYS_NFTABLES`, to whom the batch is addressed.
const SUBSYSTEM: u16 = 10;
/// nft's numbers of the data types, six bits each (`datatype.h`); the kernel only stores them.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PORT: u32 = 13;

/// Family of a table (`NFPROTO_*`).
#[derive(Clone, Copy, Debug)]
pub(super) enum TableFamily {
    Inet = 1,
    Netdev = 5,
}

/// What the elements of a set are.
#[derive(Clone, Copy, Debug)]
pub(super) enum SetKind {
    /// `ipv4_addr . inet_service`
    V4,
    /// `ipv6_addr . inet_service`
    V6,
    /// `inet_service`
    Port,
    /// `inet_service`, of another set
    HeldPort,
    /// `inet_service`, of a third set
    OwnPort,
}

impl SetKind {
    const fn type_number(self) -> u32 {
        match self {
            Self::V4 => (TYPE_IPV4 << 6) | TYPE_PORT,
            Self::V6 => (TYPE_IPV6 << 6) | TYPE_PORT,
            Self::Port | Self::HeldPort | Self::OwnPort => TYPE_PORT,
        }
    }

    /// Length of a key; each field of a concatenation is padded to 4 bytes.
    const fn key_len(self) -> u32 {
        match self {
            Self::V4 => 8,
            Self::V6 => 20,
            Self::Port | Self::HeldPort | Self::OwnPort => 2,
        }
    }

    /// An id that is unique in the batch.
    const fn id(self) -> u32 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
            Self::Port => 3,
            Self::HeldPort => 4,
            Self::OwnPort => 5,
        }
    }
}

/// Where a base chain hangs.
pub(super) struct Hook<'a> {
    pub(super) kind: &'static str,
    /// `NF_INET_*` or `NF_NETDEV_*`.
    pub(super) number: u32,
    pub(super) priority: i32,
    /// Interfaces of a chain that sees frames.
    pub(super) devices: &'a [String],
}

/// A transaction on one table.
pub(super) struct Batch {
    family: TableFamily,
    table: &'static str,
    messages: Chained<'static>,
}

impl Batch {
    pub(super) fn new(socket: &mut NetlinkSocket, family: TableFamily, table: &'static str) -> Self {
        let mut messages = Chained::new(socket.reserve_seq(MAX_MESSAGES));
        messages.request().op_batch_begin_do(&batch_header());
        Self { family, table, messages }
    }

    /// Removes the table whether it is there or not, and makes an empty one.
    pub(super) fn replace_table(&mut self) {
        self.create_table();
        self.delete_table();
        self.create_table();
    }

    /// Removes the table whether it is there or not.
    pub(super) fn remove_table(&mut self) {
        self.create_table();
        self.delete_table();
    }

    pub(super) fn chain(&mut self, name: &str, hook: &Hook<'_>) {
        let header = self.header();
        let request = self.messages.request().set_create().op_newchain_do(&header).into_encoder();
        let chain = request.push_table_bytes(self.table.as_bytes()).push_name_bytes(name.as_bytes());
        let mut nested = chain.nested_hook().push_num(hook.number).push_priority(hook.priority);
        if !hook.devices.is_empty() {
            let devices = hook.devices.iter();
            nested = devices
                .fold(nested.nested_devs(), |list, name| list.push_name_bytes(name.as_bytes()))
                .end_nested();
        }
        nested.end_nested().push_type_bytes(hook.kind.as_bytes()).end_nested();
    }

    /// Creates a set; its elements vanish `timeout` after they were added.
    pub(super) fn set(&mut self, name: &str, kind: SetKind, timeout: Option<Duration>) {
        let header = self.header();
        let request = self.messages.request().set_create().op_newset_do(&header).into_encoder();
        let mut set = request.push_table_bytes(self.table.as_bytes()).push_name_bytes(name.as_bytes());
        set = set.push_flags(timeout.map_or(0, |_| SetFlags::Timeout as u32));
        set = set.push_key_type(kind.type_number()).push_key_len(kind.key_len()).push_id(kind.id());
        if let Some(timeout) = timeout {
            // The kernel reads this number in network order; the generated binding writes it as it is.
            set = set.push_timeout(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).to_be());
        }
        set.end_nested();
    }

    /// Makes `keys` the elements of a set. Emptying comes first, because adding an element that is there does not
    /// renew its timeout before Linux 6.12.
    pub(super) fn elements(&mut self, set: &str, keys: impl ExactSizeIterator<Item = Vec<u8>>) {
        let header = self.header();
        let flush = self.messages.request().op_delsetelem_do(&header).into_encoder();
        flush.push_table_bytes(self.table.as_bytes()).push_set_bytes(set.as_bytes()).end_nested();
        if keys.len() == 0 {
            return;
        }
        let request = self.messages.request().set_create().op_newsetelem_do(&header).into_encoder();
        let list =
            request.push_table_bytes(self.table.as_bytes()).push_set_bytes(set.as_bytes()).nested_elements();
        let list = keys.fold(list, |list, key| {
            list.nested_elem().nested_key().push_value(&key).end_nested().end_nested()
        });
        list.end_nested().end_nested();
    }

    pub(super) fn rule(&mut self, chain: &str, write: impl FnOnce(Expr<'_>) -> Expr<'_>) {
        let header = self.header();
        let request = self.messages.request().set_create().set_append().op_newrule_do(&header).into_encoder();
        let rule = request.push_table_bytes(self.table.as_bytes()).push_chain_bytes(chain.as_bytes());
        write(Expr::new(rule.nested_expressions())).finish();
    }

    /// Sends the batch and waits for the kernel's word on it.
    pub(super) fn commit(mut self, socket: &mut NetlinkSocket) -> Result<(), ReplyError> {
        self.messages.request().op_batch_end_do(&batch_header());
        let messages = Sealed(self.messages.finalize());
        if messages.chain_len() > MAX_MESSAGES as usize {
            return Err(io::Error::other("too many messages in one transaction").into());
        }
        socket.request_chained(&messages)?.recv_all()
    }

    fn create_table(&mut self) {
        let header = self.header();
        let request = self.messages.request().set_create().op_newtable_do(&header).into_encoder();
        request.push_name_bytes(self.table.as_bytes()).push_flags(0).end_nested();
    }

    fn delete_table(&mut self) {
        let header = self.header();
        let request = self.messages.request().op_deltable_do(&header).into_encoder();
        request.push_name_bytes(self.table.as_bytes()).end_nested();
    }

    fn header(&self) -> Nfgenmsg {
        Nfgenmsg { nfgen_family: self.family as u8, ..Nfgenmsg::default() }
    }
}

/// Key of an address set: the address, the port, padding to 4 bytes.
pub(super) fn key(address: &[u8], port: u16) -> Vec<u8> {
    [address, &port.to_be_bytes(), &[0, 0]].concat()
}

fn batch_header() -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.set_res_id(SUBSYSTEM);
    header
}

/// The finished messages. Begin and end of a batch are never acknowledged before Linux 6.10; they are known here by
/// their place, where the generated binding compares addresses of functions, which an optimiser may merge or copy.
struct Sealed(ChainedFinal<'static>);

impl NetlinkChained for Sealed {
    fn protonum(&self) -> u16 {
        self.0.protonum()
    }

    fn payload(&self) -> &[u8] {
        self.0.payload()
    }

    fn chain_len(&self) -> usize {
        self.0.chain_len()
    }

    fn get_index(&self, seq: u32) -> Option<usize> {
        NetlinkChained::get_index(&self.0, seq)
    }

    fn name(&self, index: usize) -> &'static str {
        self.0.name(index)
    }

    fn lookup(&self, index: usize) -> LookupFn {
        self.0.lookup(index)
    }

    fn supports_ack(&self, index: usize) -> Option<bool> {
        let last = self.chain_len().checked_sub(1)?;
        (index <= last).then_some(index != 0 && index != last)
    }
}
