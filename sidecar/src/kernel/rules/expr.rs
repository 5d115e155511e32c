//! The expressions of one rule, in the vocabulary of `nft(8)`.
//!
//! Invariant: a method appends what the line `nft` would write for it compiles to; the namespace tests compare the
//! result with `nft -j list`. Registers 1 to 4 hold 16 bytes each; fields of a concatenation lie in consecutive
//! 4-byte registers from register 1 on (`include/uapi/linux/netfilter/nf_tables.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_bindings::{
    nftables::{CmpOps, CtKeys, MetaKeys, PayloadBase, PushExprListAttrs, PushRuleAttrs, VerdictCode},
    utils::RequestBuf,
};

/// `NFT_REG_1`.
const REG_1: u32 = 1;
/// `NFT_REG_2`.
const REG_2: u32 = 2;
/// `NFT_REG32_00`: the first 4 bytes of register 1.
const REG32_00: u32 = 8;
/// `NFT_NAT_DNAT`.
const DNAT: u32 = 1;
/// `NFPROTO_INET`.
const BOTH_FAMILIES: u32 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Offset of a segment's flags, and two of them (RFC 9293, section 3.1).
const FLAGS: u32 = 13;
const SYN_ACK: u8 = 0x12;
/// Bits of the conntrack states `established` and `related`.
const ESTABLISHED_RELATED: u32 = 0b110;
/// Longest interface name with its end (`IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// Address family of a rule (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// `ETH_P_IP` or `ETH_P_IPV6`.
    const fn ethertype(self) -> u16 {
        match self {
            Self::V4 => 0x0800,
            Self::V6 => 0x86dd,
        }
    }

    /// Offset and length of the destination address in the network header (RFC 791, RFC 8200).
    const fn destination(self) -> (u32, u32) {
        match self {
            Self::V4 => (16, 4),
            Self::V6 => (24, 16),
        }
    }

    /// Offset of the source address, which is as long.
    const fn source(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    pub(super) const fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }
}

/// The expression list of a rule that is being written.
pub(super) struct Expr<'a>(PushExprListAttrs<PushRuleAttrs<RequestBuf<'a>>>);

impl<'a> Expr<'a> {
    pub(super) const fn new(list: PushExprListAttrs<PushRuleAttrs<RequestBuf<'a>>>) -> Self {
        Self(list)
    }

    pub(super) fn finish(self) {
        self.0.end_nested().end_nested();
    }

    /// `meta mark VALUE`
    pub(super) fn mark_is(self, mark: u32) -> Self {
        self.meta(MetaKeys::Mark).compare(CmpOps::Eq, &mark.to_ne_bytes())
    }

    /// `meta mark != VALUE`
    pub(super) fn mark_is_not(self, mark: u32) -> Self {
        self.meta(MetaKeys::Mark).compare(CmpOps::Neq, &mark.to_ne_bytes())
    }

    /// `meta skuid UID`
    pub(super) fn uid_is(self, uid: u32) -> Self {
        self.meta(MetaKeys::Skuid).compare(CmpOps::Eq, &uid.to_ne_bytes())
    }

    /// `meta nfproto ipv4|ipv6`
    pub(super) fn family_is(self, family: Family) -> Self {
        self.meta(MetaKeys::Nfproto).compare(CmpOps::Eq, &[family.number()])
    }

    /// `meta protocol ip|ip6`, for a table that sees frames
    pub(super) fn frame_carries(self, family: Family) -> Self {
        self.meta(MetaKeys::Protocol).compare(CmpOps::Eq, &family.ethertype().to_be_bytes())
    }

    /// `meta l4proto tcp`
    pub(super) fn tcp(self) -> Self {
        self.meta(MetaKeys::L4Proto).compare(CmpOps::Eq, &[TCP])
    }

    /// `oifname NAME`
    pub(super) fn leaves_by(self, interface: &str) -> Self {
        self.meta(MetaKeys::Oifname).compare(CmpOps::Eq, &interface_name(interface))
    }

    /// `oifname != NAME`
    pub(super) fn leaves_not_by(self, interface: &str) -> Self {
        self.meta(MetaKeys::Oifname).compare(CmpOps::Neq, &interface_name(interface))
    }

    /// `iifname NAME`
    pub(super) fn comes_by(self, interface: &str) -> Self {
        self.meta(MetaKeys::Iifname).compare(CmpOps::Eq, &interface_name(interface))
    }

    /// `ct state & (established|related) == 0`
    pub(super) fn unsolicited(self) -> Self {
        let list = self.0.nested_elem().nested_data_ct().push_dreg(REG_1).push_key(CtKeys::State as u32);
        let list = list.end_nested().end_nested().nested_elem().nested_data_bitwise();
        let bitwise = list.push_sreg(REG_1).push_dreg(REG_1).push_len(4);
        let bitwise = bitwise.nested_mask().push_value(&ESTABLISHED_RELATED.to_ne_bytes()).end_nested();
        let bitwise = bitwise.nested_xor().push_value(&[0; 4]).end_nested();
        Self(bitwise.end_nested().end_nested()).compare(CmpOps::Eq, &[0; 4])
    }

    /// `ip saddr ADDRESS tcp sport PORT`
    pub(super) fn comes_from(self, from: SocketAddr) -> Self {
        let (family, address) = match from.ip() {
            IpAddr::V4(ip) => (Family::V4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (Family::V6, ip.octets().to_vec()),
        };
        let len = u32::try_from(address.len()).unwrap_or_default();
        self.payload(PayloadBase::NetworkHeader, family.source(), len, REG_1)
            .compare(CmpOps::Eq, &address)
            .payload(PayloadBase::TransportHeader, 0, 2, REG_1)
            .compare(CmpOps::Eq, &from.port().to_be_bytes())
    }

    /// `tcp flags & (syn | ack) == syn | ack`: a socket takes a connection
    pub(super) fn accepts(self) -> Self {
        let expr = self.payload(PayloadBase::TransportHeader, FLAGS, 1, REG_1);
        let bitwise = expr.0.nested_elem().nested_data_bitwise();
        let bitwise = bitwise.push_sreg(REG_1).push_dreg(REG_1).push_len(1);
        let bitwise = bitwise.nested_mask().push_value(&[SYN_ACK]).end_nested();
        let bitwise = bitwise.nested_xor().push_value(&[0]).end_nested();
        Self(bitwise.end_nested().end_nested()).compare(CmpOps::Eq, &[SYN_ACK])
    }

    /// `ip daddr . tcp dport @SET`
    pub(super) fn destination_in(self, family: Family, set: &str) -> Self {
        let (offset, len) = family.destination();
        self.payload(PayloadBase::NetworkHeader, offset, len, REG_1)
            .payload(PayloadBase::TransportHeader, 2, 2, REG32_00.saturating_add(len / 4))
            .lookup(set)
    }

    /// `tcp dport @SET`
    pub(super) fn port_in(self, set: &str) -> Self {
        self.payload(PayloadBase::TransportHeader, 2, 2, REG_1).lookup(set)
    }

    /// `tcp dport PORT`
    pub(super) fn port_is(self, port: u16) -> Self {
        self.payload(PayloadBase::TransportHeader, 2, 2, REG_1).compare(CmpOps::Eq, &port.to_be_bytes())
    }

    /// `dnat to :PORT`: the address stays as it is
    pub(super) fn port_to(self, port: u16) -> Self {
        let expr = self.immediate(REG_1, &port.to_be_bytes());
        let nat = expr.0.nested_elem().nested_data_nat().push_type(DNAT);
        let nat = nat.push_family(BOTH_FAMILIES).push_reg_proto_min(REG_1);
        Self(nat.end_nested().end_nested())
    }

    /// `dnat ip to ip daddr`: nothing changes, and no later chain may translate the connection
    pub(super) fn keep_destination(self, family: Family) -> Self {
        let (offset, len) = family.destination();
        let expr = self.payload(PayloadBase::NetworkHeader, offset, len, REG_1);
        let nat = expr.0.nested_elem().nested_data_nat().push_type(DNAT);
        let nat = nat.push_family(u32::from(family.number())).push_reg_addr_min(REG_1);
        Self(nat.end_nested().end_nested())
    }

    /// `dnat ip to ADDRESS:PORT`
    pub(super) fn redirect_to(self, to: SocketAddr) -> Self {
        let (family, expr) = match to.ip() {
            IpAddr::V4(ip) => (Family::V4, self.immediate(REG_1, &ip.octets())),
            IpAddr::V6(ip) => (Family::V6, self.immediate(REG_1, &ip.octets())),
        };
        let expr = expr.immediate(REG_2, &to.port().to_be_bytes());
        let nat = expr.0.nested_elem().nested_data_nat().push_type(DNAT);
        let nat =
            nat.push_family(u32::from(family.number())).push_reg_addr_min(REG_1).push_reg_proto_min(REG_2);
        Self(nat.end_nested().end_nested())
    }

    /// `drop`
    pub(super) fn drop_it(self) -> Self {
        let data = self.0.nested_elem().nested_data_immediate().push_dreg(0).nested_data();
        let data = data.nested_verdict().push_code(VerdictCode::Drop as u32).end_nested().end_nested();
        Self(data.end_nested().end_nested())
    }

    fn meta(self, key: MetaKeys) -> Self {
        let meta = self.0.nested_elem().nested_data_meta().push_dreg(REG_1).push_key(key as u32);
        Self(meta.end_nested().end_nested())
    }

    fn compare(self, op: CmpOps, value: &[u8]) -> Self {
        let cmp = self.0.nested_elem().nested_data_cmp().push_sreg(REG_1).push_op(op as u32);
        Self(cmp.nested_data().push_value(value).end_nested().end_nested().end_nested())
    }

    fn payload(self, base: PayloadBase, offset: u32, len: u32, register: u32) -> Self {
        let payload = self.0.nested_elem().nested_data_payload().push_dreg(register);
        let payload = payload.push_base(base as u32).push_offset(offset).push_len(len);
        Self(payload.end_nested().end_nested())
    }

    fn lookup(self, set: &str) -> Self {
        let lookup = self.0.nested_elem().nested_data_lookup().push_set_bytes(set.as_bytes());
        // The specification that the binding is made from swaps two attributes: what it calls the set's id has the
        // number of the source register (NFTA_LOOKUP_SREG). A kernel would refuse the rule if this changed.
        Self(lookup.push_set_id(REG_1).end_nested().end_nested())
    }

    fn immediate(self, register: u32, value: &[u8]) -> Self {
        let immediate = self.0.nested_elem().nested_data_immediate().push_dreg(register);
        Self(immediate.nested_data().push_value(value).end_nested().end_nested().end_nested())
    }
}

/// The name as the kernel compares it: whole register, padded with zeros.
fn interface_name(name: &str) -> [u8; IFNAMSIZ] {
    let mut padded = [0; IFNAMSIZ];
    padded.iter_mut().zip(name.bytes().take(IFNAMSIZ.saturating_sub(1))).for_each(|(to, from)| *to = from);
    padded
}
