//! The one guard for every URL that a tenant writes.
//!
//! A tenant's URL makes the operator, which has the platform's place in the network, call where
//! the tenant says. So a URL is admitted in two stages, both of which must pass: [`Egress::admit`]
//! judges what the text says, and [`Egress::admit_addresses`] judges what its host resolves to,
//! at the moment of the connection ([`super::Caller`]), so that there is no time between the
//! check and the use in which a name could come to mean something else.

use super::address::{self, Special};
use super::redacted::Redacted;
use ipnet::IpNet;
use reqwest::Url;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// Longest URL that is read, in bytes.
const URL_BYTES: usize = 2048;

/// One entry of the platform's allow list, as `--allow-egress` takes it: `host`, `host:port`,
/// `address`, `address:port` (IPv6 in brackets) or a CIDR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// A host as URLs write it, on one port or on all. What a name resolves to is then the platform's affair.
    Host { host: String, port: Option<u16> },
    /// Every address in a range, on all ports, whatever name led there.
    Range(IpNet),
}

/// An entry of the allow list that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host, host:port, address or CIDR (a URL's scheme and path do not belong here; IPv6 with a port is [ADDRESS]:PORT)"
)]
pub struct NotAnEntry(String);

impl FromStr for Allowed {
    type Err = NotAnEntry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NotAnEntry(text.to_owned());
        if let Ok(range) = text.parse::<IpNet>() {
            return Ok(Self::Range(range.trunc()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Range(IpNet::from(address::plain(address))));
        }
        if text.contains(['/', '@', '?', '#', '\\']) || text.chars().any(char::is_whitespace) {
            return Err(bad());
        }
        // The URL parser knows how hosts are spelt; scheme `http` makes it apply the web's rules.
        let url = Url::parse(&format!("http://{text}/")).map_err(|_| bad())?;
        let port = match text.rsplit_once(':') {
            Some((_, port)) if !text.ends_with(']') => Some(port.parse().map_err(|_| bad())?),
            _ => None,
        };
        match (host_of(&url), port) {
            (None, _) | (_, Some(0)) => Err(bad()),
            (Some(Host::Address(address)), None) => Ok(Self::Range(IpNet::from(address))),
            (Some(host), port) => Ok(Self::Host {
                host: host.to_string(),
                port,
            }),
        }
    }
}

/// What becomes of a host that the allow list does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// It is called, unless it is special: loopback, link-local, metadata, the API server and the like.
    Open,
    /// It is not called.
    Refused,
}

/// The platform's rules for tenants' URLs. A cheap handle.
#[derive(Debug, Clone)]
pub struct Egress(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    unlisted: Unlisted,
    allow: Vec<Allowed>,
    api_names: Vec<String>,
    api_addresses: Vec<IpAddr>,
}

/// A URL whose text is admitted. Its `Debug` and its errors show the host and nothing more,
/// since the rest is often a secret.
#[derive(Clone)]
pub struct Target {
    url: Redacted<Url>,
    host: Host,
    trusted: bool,
}

/// A host as the guard compares it: no brackets, no dot at the end, IPv4 undressed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    Address(IpAddr),
}

/// Why a URL is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is no URL")]
    NotAUrl,
    #[error("its scheme is neither http nor https")]
    Scheme,
    #[error("it has a user name or password in it; send an Authorization header instead")]
    UserInfo,
    #[error("its port is 0")]
    Port,
    #[error("it is longer than {URL_BYTES} bytes")]
    TooLong,
    #[error("{host} is {what}, and the operator's --allow-egress does not name it")]
    Name { host: String, what: &'static str },
    #[error("{host} is {what}, and the operator's --allow-egress does not name it")]
    Literal { host: String, what: &'static str },
    #[error(
        "{host} resolves to {address}, {what}, and the operator's --allow-egress does not name it"
    )]
    Resolved {
        host: String,
        address: IpAddr,
        what: &'static str,
    },
    #[error("{host} is not on the operator's --allow-egress list")]
    NotListed { host: String },
}

impl Refusal {
    /// A stable word for metrics and events.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAUrl => "NotAURL",
            Self::Scheme => "SchemeRefused",
            Self::UserInfo => "UserInfoRefused",
            Self::Port => "PortRefused",
            Self::TooLong => "URLTooLong",
            Self::Name { .. } => "NameRefused",
            Self::Literal { .. } | Self::Resolved { .. } => "AddressRefused",
            Self::NotListed { .. } => "HostNotListed",
        }
    }
}

impl Egress {
    /// Every host but the special ones, and those that the list names.
    #[must_use]
    pub fn open(allow: Vec<Allowed>) -> Self {
        Self::new(Unlisted::Open, allow)
    }

    /// Nothing but what the list names.
    #[must_use]
    pub fn only_listed(allow: Vec<Allowed>) -> Self {
        Self::new(Unlisted::Refused, allow)
    }

    #[must_use]
    pub fn new(unlisted: Unlisted, allow: Vec<Allowed>) -> Self {
        Self(Arc::new(Rules {
            unlisted,
            allow,
            api_names: Vec::new(),
            api_addresses: Vec::new(),
        }))
    }

    /// Refuses the API server too: its host in the kubeconfig or in `KUBERNETES_SERVICE_HOST`, and
    /// the addresses of its endpoints. Each is a name or an address, without a port; a name is
    /// compared as a name, so give what it resolves to as well.
    #[must_use]
    pub fn with_api_servers<S: AsRef<str>>(self, hosts: impl IntoIterator<Item = S>) -> Self {
        let mut rules = Rules {
            unlisted: self.0.unlisted,
            allow: self.0.allow.clone(),
            api_names: self.0.api_names.clone(),
            api_addresses: self.0.api_addresses.clone(),
        };
        for host in hosts {
            let host = host.as_ref().trim_matches(['[', ']']);
            match host.parse::<IpAddr>() {
                Ok(address) => rules.api_addresses.push(address::plain(address)),
                Err(_) => rules
                    .api_names
                    .push(host.trim_end_matches('.').to_ascii_lowercase()),
            }
        }
        Self(Arc::new(rules))
    }

    /// Judges the text of a URL; white space around it is no part of it.
    ///
    /// # Errors
    /// Says why the URL is not called, naming its host at most.
    pub fn admit(&self, text: &str) -> Result<Target, Refusal> {
        let text = text.trim();
        if text.len() > URL_BYTES {
            return Err(Refusal::TooLong);
        }
        // The parser would drop tabs and line ends without a word.
        if text.chars().any(char::is_control) {
            return Err(Refusal::NotAUrl);
        }
        let url = Url::parse(text).map_err(|_| Refusal::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        let host = host_of(&url).ok_or(Refusal::NotAUrl)?;
        let port = url.port_or_known_default().ok_or(Refusal::NotAUrl)?;
        if port == 0 {
            return Err(Refusal::Port);
        }
        let trusted = self.lists(&host, port);
        if !trusted {
            self.admit_unlisted(&host)?;
        }
        let url = Redacted::new(url);
        Ok(Target { url, host, trusted })
    }

    /// Of the addresses that a name resolves to, those that may be called.
    ///
    /// # Errors
    /// Where none may, says why not for the first of them.
    pub fn admit_addresses(
        &self,
        host: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Vec<IpAddr>, Refusal> {
        let mut admitted = Vec::new();
        let mut refused = None;
        for address in addresses {
            match self.objection(address) {
                None => admitted.push(address),
                Some(objection) => refused = refused.or(Some((address, objection))),
            }
        }
        match refused {
            Some((address, objection)) if admitted.is_empty() => Err(match objection {
                Objection::Is(what) => Refusal::Resolved {
                    host: host.to_owned(),
                    address,
                    what,
                },
                Objection::NotListed => Refusal::NotListed {
                    host: host.to_owned(),
                },
            }),
            _ => Ok(admitted),
        }
    }

    fn admit_unlisted(&self, host: &Host) -> Result<(), Refusal> {
        let shown = host.to_string();
        match host {
            Host::Address(address) => match self.objection(*address) {
                None => Ok(()),
                Some(Objection::Is(what)) => Err(Refusal::Literal { host: shown, what }),
                Some(Objection::NotListed) => Err(Refusal::NotListed { host: shown }),
            },
            Host::Name(name) => {
                let api = self.0.api_names.contains(name).then_some("the API server");
                if let Some(what) = address::special_name(name).or(api) {
                    return Err(Refusal::Name { host: shown, what });
                }
                match self.0.unlisted {
                    Unlisted::Open => Ok(()),
                    // A range may yet name what it resolves to.
                    Unlisted::Refused if self.ranges().next().is_some() => Ok(()),
                    Unlisted::Refused => Err(Refusal::NotListed { host: shown }),
                }
            }
        }
    }

    fn lists(&self, host: &Host, port: u16) -> bool {
        let shown = host.to_string();
        self.0.allow.iter().any(|entry| match entry {
            Allowed::Host {
                host: listed,
                port: only,
            } => *listed == shown && only.is_none_or(|only| only == port),
            Allowed::Range(_) => false,
        })
    }

    fn ranges(&self) -> impl Iterator<Item = &IpNet> {
        self.0.allow.iter().filter_map(|entry| match entry {
            Allowed::Range(range) => Some(range),
            Allowed::Host { .. } => None,
        })
    }

    fn objection(&self, address: IpAddr) -> Option<Objection> {
        let address = address::plain(address);
        let inner = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => address::embedded(v6).map(IpAddr::V4),
        };
        let is_api = |address: &IpAddr| self.0.api_addresses.contains(address);
        if is_api(&address) || inner.as_ref().is_some_and(is_api) {
            let named = self.ranges().any(|range| is_just(range, address));
            return (!named).then_some(Objection::Is("the API server's address"));
        }
        match Special::of(address) {
            Some(special) => {
                let named = self.ranges().any(|range| names(range, address, special));
                (!named).then_some(Objection::Is(special.describe()))
            }
            None => match self.0.unlisted {
                Unlisted::Open => None,
                Unlisted::Refused => {
                    let listed = self.ranges().any(|range| range.contains(&address));
                    (!listed).then_some(Objection::NotListed)
                }
            },
        }
    }
}

enum Objection {
    Is(&'static str),
    NotListed,
}

/// Whether a range was meant for a special address: `127.0.0.0/8` is for loopback addresses,
/// `0.0.0.0/0` is for none. A metadata address must be named by itself.
fn names(range: &IpNet, address: IpAddr, special: Special) -> bool {
    let alike = |end: IpAddr| Special::of(end) == Some(special);
    match special {
        Special::Metadata => is_just(range, address),
        _ => {
            is_just(range, address)
                || (range.contains(&address) && alike(range.network()) && alike(range.broadcast()))
        }
    }
}

fn is_just(range: &IpNet, address: IpAddr) -> bool {
    *range == IpNet::from(address)
}

impl Target {
    /// The URL, for the wire alone.
    #[must_use]
    pub fn url(&self) -> &Url {
        self.url.expose()
    }

    /// The host, which may stand in a sentence.
    #[must_use]
    pub fn host(&self) -> String {
        self.host.to_string()
    }

    /// Whether the allow list names the very host and port, so that any address will do.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.host)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The host of a URL whose scheme is http or https: the parser has already turned every spelling
/// of an IPv4 address (decimal, octal, hex, short) into four numbers, and a name into ASCII.
fn host_of(url: &Url) -> Option<Host> {
    let host = url.host_str()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Host::Address(address::plain(address)));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    (!name.is_empty()).then(|| Host::Name(name.to_ascii_lowercase()))
}
