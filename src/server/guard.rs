//! A web page is no way in. A browser sends what a page tells it to, from inside of the network that keeps others out; what
//! it cannot lie about is checked here, in front of every door.
//!
//! - The name by which the service is asked must be one of its own: a page of another site can make its own name lead to
//!   this address (DNS rebinding), and then counts as of the same origin.
//! - A page of another origin is refused, unless that origin may call.
//!
//! What is no browser passes when it uses the right name. Who is calling is not asked here.

use super::refusal::Refusal;
use crate::config::{Authority, Host, Origin, Server};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Uri};
use std::net::{IpAddr, SocketAddr};

/// The header in which a browser tells how the page that asks is related to us.
const SITE: &str = "sec-fetch-site";

/// Names and pages that are known.
pub(super) struct Guard {
    hosts: Vec<Host>,
    origins: Vec<Origin>,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entrance {
    /// Our end of the connection.
    pub(super) address: IpAddr,
    /// Whether it speaks TLS.
    pub(super) is_tls: bool,
}

impl Guard {
    /// A guard of the port that is bound there.
    pub(super) fn new(options: &Server, bound: SocketAddr) -> Self {
        let hosts = [options.advertised(bound).host].into_iter().chain(options.allowed_hosts.iter().cloned()).collect();
        Self { hosts, origins: options.cors_origins.clone() }
    }

    /// Whether a request goes on.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap, entrance: Entrance) -> Result<(), Refusal> {
        let asked = self.authority(uri, headers, entrance)?;
        let foreign = Refusal::Forbidden("the request comes from a web page of another origin; if its scripts may call, add it to server.cors_origins");
        let mut origins = headers.get_all(ORIGIN).iter();
        if let Some(origin) = origins.next() {
            let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Origin>().ok()).filter(|_| origins.next().is_none());
            return match origin {
                Some(origin) if self.origins.contains(&origin) || is_same(&origin, &asked, entrance) => Ok(()),
                _ => Err(foreign),
            };
        }
        // A page can ask without naming itself: with a picture, a link, a script.
        if headers.get_all(SITE).iter().all(|site| matches!(site.as_bytes(), b"same-origin" | b"none")) { Ok(()) } else { Err(foreign) }
    }

    /// The name by which the service is asked, when it is one of its own.
    fn authority(&self, uri: &Uri, headers: &HeaderMap, entrance: Entrance) -> Result<Authority, Refusal> {
        let named = uri.authority().map(|authority| authority.as_str());
        let sent = headers.get_all(HOST).iter().map(HeaderValue::to_str);
        let mut asked = None;
        // Every name that is given must be ours, because we cannot know which one others have looked at.
        for name in named.map(Ok).into_iter().chain(sent) {
            let authority = name.ok().and_then(|name| name.parse::<Authority>().ok()).filter(|authority| self.is_ours(&authority.host, entrance));
            let refusal = || {
                Refusal::Forbidden(
                    "the request is for a host that is not this service; if clients reach it by that name, set server.advertise or server.allowed_hosts",
                )
            };
            asked = Some(authority.ok_or_else(refusal)?);
        }
        asked.ok_or(Refusal::Forbidden("the request names no host"))
    }

    fn is_ours(&self, host: &Host, entrance: Entrance) -> bool {
        host.is_loopback() || *host == Host::Address(entrance.address.to_canonical()) || self.hosts.contains(host)
    }
}

/// Whether a page comes from the service itself. In clear text the page may have come over TLS all the same: from a proxy
/// in front of us.
fn is_same(origin: &Origin, asked: &Authority, entrance: Entrance) -> bool {
    let scheme = origin.is_https || !entrance.is_tls;
    scheme && origin.host == asked.host && origin.port == asked.port.unwrap_or(Origin::default_port(origin.is_https))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn passes(bound: &str, is_tls: bool, uri: &str, headers: &[(&str, &str)]) -> bool {
        let options = Server {
            advertise: Some("backups.example:443".parse().unwrap()),
            allowed_hosts: vec!["redkeep.internal".parse().unwrap()],
            cors_origins: vec!["https://console.example".parse().unwrap()],
            ..Server::default()
        };
        let bound: SocketAddr = bound.parse().unwrap();
        let headers = headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()));
        let entrance = Entrance { address: bound.ip(), is_tls };
        Guard::new(&options, bound).check(&uri.parse().unwrap(), &headers.collect(), entrance).is_ok()
    }

    #[test]
    fn the_service_is_asked_by_its_own_names() {
        for (bound, host, expected) in [
            ("127.0.0.1:7379", "localhost:7379", true),
            ("127.0.0.1:7379", "LOCALHOST", true),
            ("127.0.0.1:7379", "127.0.0.1:9", true),
            ("127.0.0.1:7379", "[::1]:7379", true),
            ("127.0.0.1:7379", "backups.example", true),
            ("127.0.0.1:7379", "redkeep.internal:1", true),
            ("127.0.0.1:7379", "rebound.evil:7379", false),
            ("127.0.0.1:7379", "localhost.evil:7379", false),
            ("127.0.0.1:7379", "127.0.0.1.evil", false),
            ("127.0.0.1:7379", "0.0.0.0:7379", false),
            ("127.0.0.1:7379", "10.0.0.7", false),
            ("127.0.0.1:7379", "", false),
            ("127.0.0.1:7379", "localhost:x", false),
            ("127.0.0.1:7379", "me@localhost", false),
            ("10.0.0.7:7379", "10.0.0.7:7379", true),
            ("10.0.0.7:7379", "10.0.0.8:7379", false),
            ("10.0.0.7:7379", "localhost", true),
            ("10.0.0.7:7379", "rebound.evil", false),
        ] {
            assert_eq!(passes(bound, false, "/", &[("host", host)]), expected, "{host} at {bound}");
            if !host.is_empty() && !host.contains('@') && !host.ends_with('x') {
                assert_eq!(passes(bound, false, &format!("http://{host}/"), &[]), expected, "{host} as :authority at {bound}");
            }
        }
        let (own, other) = (("host", "localhost"), ("host", "rebound.evil"));
        assert!(!passes("127.0.0.1:1", false, "/", &[]), "no name at all");
        assert!(!passes("127.0.0.1:1", false, "/", &[own, other]), "two names");
        assert!(!passes("127.0.0.1:1", false, "http://rebound.evil/", &[own]), "two names in two places");
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        type Row<'a> = (bool, &'a str, &'a [(&'a str, &'a str)], bool);
        let table: [Row<'_>; 20] = [
            (false, "localhost:7379", &[("origin", "http://localhost:7379")], true),
            (false, "localhost:7379", &[("origin", "https://localhost:7379")], true),
            (true, "localhost:7379", &[("origin", "http://localhost:7379")], false),
            (true, "localhost:7379", &[("origin", "https://localhost:7379")], true),
            (true, "backups.example", &[("origin", "https://backups.example")], true),
            (true, "backups.example:443", &[("origin", "https://backups.example")], true),
            (false, "localhost:7379", &[("origin", "http://localhost:3000")], false),
            (false, "localhost:7379", &[("origin", "http://127.0.0.1:7379")], false),
            (false, "localhost:7379", &[("origin", "https://evil.example")], false),
            (false, "localhost:7379", &[("origin", "null")], false),
            (false, "localhost:7379", &[("origin", "")], false),
            (false, "localhost:7379", &[("origin", "https://console.example")], true),
            (false, "localhost:7379", &[("origin", "https://console.example"), ("sec-fetch-site", "cross-site")], true),
            (false, "localhost:7379", &[("origin", "http://console.example")], false),
            (false, "localhost:7379", &[("origin", "https://console.example"), ("origin", "https://evil.example")], false),
            (false, "localhost:7379", &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], false),
            (false, "localhost:7379", &[("sec-fetch-site", "cross-site")], false),
            (false, "localhost:7379", &[("sec-fetch-site", "same-site")], false),
            (false, "localhost:7379", &[("sec-fetch-site", "same-origin")], true),
            (false, "localhost:7379", &[("sec-fetch-site", "none")], true),
        ];
        for (is_tls, host, headers, expected) in table {
            let headers = [&[("host", host)], headers].concat();
            assert_eq!(passes("127.0.0.1:7379", is_tls, "/", &headers), expected, "{headers:?} over TLS: {is_tls}");
        }
    }
}
