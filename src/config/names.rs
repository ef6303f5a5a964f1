//! Names in URLs: hosts, addresses that are handed out, origins of web pages. Both the configuration and the guard of the
//! port read them here, so that they compare alike.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Longest name of a host.
///
/// Source: RFC 1035, section 2.3.4.
const HOST_CHARS: usize = 253;

/// A host as it stands in a URL: an address, or a name in lower case without the dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

impl Host {
    /// Whether it is this machine for whoever asks.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || "must be the name or address of a host, such as backups.example.com".to_owned();
        if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return inside.parse::<Ipv6Addr>().map(|address| Self::Address(IpAddr::V6(address).to_canonical())).map_err(|_| fault());
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let legal = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        // What ends in a number is an address for browsers, in one of many old spellings.
        let numeric = name.rsplit('.').next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_digit()));
        if name.len() > HOST_CHARS || numeric || !name.split('.').all(legal) { Err(fault()) } else { Ok(Self::Name(name.to_ascii_lowercase())) }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A host with a port where one is given, as after the `//` of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, when one is named.
    pub port: Option<u16>,
}

impl FromStr for Authority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            // Colons inside brackets belong to the address.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        if host.contains(':') && !host.starts_with('[') {
            return Err("an IPv6 address with a port stands in brackets, as in [::1]:7379".to_owned());
        }
        let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        let port = port.map(|port| digits(port).ok_or_else(|| "has a port that is no number up to 65535".to_owned())).transpose()?;
        Ok(Self { host: host.parse()?, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Where a web page comes from. The port is always known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether the page came over TLS.
    pub is_https: bool,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

impl Origin {
    /// Port of a URL that names none.
    pub fn default_port(is_https: bool) -> u16 {
        if is_https { 443 } else { 80 }
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || "must be the origin of a web page, such as https://console.example.com, without a path".to_owned();
        let (scheme, authority) = text.split_once("://").ok_or_else(fault)?;
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(fault()),
        };
        let Authority { host, port } = authority.parse().map_err(|_| fault())?;
        Ok(Self { is_https, host, port: port.unwrap_or(Self::default_port(is_https)) })
    }
}

/// The form in which browsers send it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_https { "https" } else { "http" }, self.host)?;
        if self.port == Self::default_port(self.is_https) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for (text, shown) in [
            ("localhost:7379", Some("localhost:7379")),
            ("LocalHost.", Some("localhost")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("[::1]:7379", Some("[::1]:7379")),
            ("[::ffff:127.0.0.1]", Some("127.0.0.1")),
            ("redis_0.example:65535", Some("redis_0.example:65535")),
            ("::1", None),
            ("::1:7379", None),
            ("[::1", None),
            ("a:65536", None),
            ("a:+1", None),
            ("a:", None),
            ("", None),
            (":1", None),
            ("a..b", None),
            ("a b", None),
            ("a/b", None),
            ("me@a", None),
            ("0x7f.1", None),
            ("2130706433", None),
            ("127.1", None),
        ] {
            assert_eq!(text.parse::<Authority>().ok().map(|authority| authority.to_string()).as_deref(), shown, "{text}");
        }
        for (text, is_loopback) in
            [("localhost", true), ("127.9.9.9", true), ("[::1]", true), ("0.0.0.0", false), ("localhost.evil", false), ("10.0.0.1", false)]
        {
            assert_eq!(text.parse::<Host>().unwrap().is_loopback(), is_loopback, "{text}");
        }
    }

    #[test]
    fn origins() {
        for (text, shown) in [
            ("https://console.example.com", Some("https://console.example.com")),
            ("https://console.example.com:443", Some("https://console.example.com")),
            ("http://Console:443", Some("http://console:443")),
            ("http://[::1]:80", Some("http://[::1]")),
            ("null", None),
            ("*", None),
            ("https://a/", None),
            ("https://a/b", None),
            ("ftp://a", None),
            ("https://", None),
            ("https://a b", None),
        ] {
            assert_eq!(text.parse::<Origin>().ok().map(|origin| origin.to_string()).as_deref(), shown, "{text}");
        }
    }
}
