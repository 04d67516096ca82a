//! What kind of place an IP address is, and which addresses stand inside another one.
//! Pure: the tables of the IANA special-purpose registries (RFC 6890) and of the clouds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A kind of address that a tenant's URL does not reach, unless the platform says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Special {
    /// A cloud's instance metadata or credentials service.
    Metadata,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// `0.0.0.0/8`, `::`; Linux takes it for this machine.
    Unspecified,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// `192.0.0.0/24`, `240.0.0.0/4`, `fec0::/10`, Teredo, local NAT64: no receiver lives there,
    /// and some hide an IPv4 address that cannot be told.
    Reserved,
}

impl Special {
    /// As it stands in a sentence: "is …".
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Metadata => "a cloud metadata address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Reserved => "a reserved address",
        }
    }

    /// What an address is; none for one that a tenant may reach.
    ///
    /// Private ranges (`10/8`, `172.16/12`, `192.168/16`, `100.64/10`, `fc00::/7`) are not
    /// special: pods and Services live there, and a receiver in the cluster is the usual case.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match plain(address) {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }
}

/// The address with an IPv4 one that merely dresses as IPv6 (`::ffff:a.b.c.d`) undressed:
/// the kernel connects to the IPv4 address.
#[must_use]
pub fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The IPv4 address that a translator or tunnel makes of an IPv6 one, where one does.
#[must_use]
pub fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        // ::a.b.c.d, RFC 4291 2.5.5.1; `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0] if address.to_bits() > 1 => Some(v4(g, h)),
        // ::ffff:a.b.c.d and, translated, ::ffff:0:a.b.c.d (RFC 2765).
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] => Some(v4(g, h)),
        // NAT64, RFC 6052.
        [0x64, 0xff9b, 0, 0, 0, 0] => Some(v4(g, h)),
        // 6to4, RFC 3056.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // ISATAP, RFC 5214, under any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe] => Some(v4(g, h)),
        _ => None,
    }
}

fn of_v4(address: Ipv4Addr) -> Option<Special> {
    let [a, b, c, d] = address.octets();
    match [a, b, c, d] {
        // AWS, Azure, Google and most others; ECS tasks; EKS pod identity.
        [169, 254, 169, 254] | [169, 254, 170, 2 | 23] => Some(Special::Metadata),
        // Alibaba, in shared address space; Oracle; Azure's wire server, in public space.
        [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => Some(Special::Metadata),
        [127, ..] => Some(Special::Loopback),
        [169, 254, ..] => Some(Special::LinkLocal),
        [0, ..] => Some(Special::Unspecified),
        [255, 255, 255, 255] => Some(Special::Broadcast),
        [224..=239, ..] => Some(Special::Multicast),
        [192, 0, 0, _] | [240..=255, ..] => Some(Special::Reserved),
        _ => None,
    }
}

fn of_v6(address: Ipv6Addr) -> Option<Special> {
    if let Some(inner) = embedded(address).and_then(of_v4) {
        return Some(inner);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Special::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Special::Loopback),
        // AWS; Google; Scaleway. Unique-local all three.
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => {
            Some(Special::Metadata)
        }
        [0xfe80..=0xfebf, ..] => Some(Special::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Special::Multicast),
        // Site-local; Teredo; local-use NAT64 (RFC 8215), whose layout is the site's own.
        [0xfec0..=0xfeff, ..] | [0x2001, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(Special::Reserved),
        _ => None,
    }
}

/// Names that stand for this machine, the API server or a metadata service, whatever they resolve to.
/// The name is in lower case and has no dot at its end.
#[must_use]
pub fn special_name(name: &str) -> Option<&'static str> {
    match name {
        "localhost" | "localhost.localdomain" | "ip6-localhost" | "ip6-loopback" => {
            Some("a name for the operator's own machine")
        }
        "metadata"
        | "metadata.google.internal"
        | "metadata.goog"
        | "metadata.azure.internal"
        | "metadata.tencentyun.com"
        | "instance-data"
        | "instance-data.ec2.internal" => Some("a cloud metadata service"),
        "kubernetes" | "kubernetes.default" => Some("the API server"),
        _ if name.ends_with(".localhost") => Some("a name for the operator's own machine"),
        // The cluster's domain is any.
        _ if name == "kubernetes.default.svc" || name.starts_with("kubernetes.default.svc.") => {
            Some("the API server")
        }
        _ => None,
    }
}
