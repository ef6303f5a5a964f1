//! The section `[server]`: how the port of the API is reached, and what it lets one client take.

use super::names::{Authority, Host, Origin};
use super::section::Section;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most names and origins of one list.
const NAMES: usize = 64;

/// How the port of the API is reached, beside its address.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Where clients are told to connect, when it is not where the service listens.
    pub advertise: Option<Authority>,
    /// Further names of hosts by which the service may be asked.
    pub allowed_hosts: Vec<Host>,
    /// Web pages whose scripts may call.
    pub cors_origins: Vec<Origin>,
    /// Names in the query of a REST call that bind nothing and are no mistake.
    pub ignored_parameters: BTreeSet<String>,
    /// With what TLS is spoken; clear text without.
    pub tls: Option<Tls>,
    /// What clients may take.
    pub limits: Limits,
}

impl Server {
    /// The address that is handed out to clients of a service that listens on `bound`: always with a port.
    pub fn advertised(&self, bound: SocketAddr) -> Authority {
        let own = if bound.ip().is_loopback() || bound.ip().is_unspecified() { Host::Name("localhost".to_owned()) } else { Host::Address(bound.ip()) };
        match &self.advertise {
            Some(Authority { host, port }) => Authority { host: host.clone(), port: port.or(Some(bound.port())) },
            None => Authority { host: own, port: Some(bound.port()) },
        }
    }

    /// What links to a service that listens on `bound` begin with. Whoever advertises port 443 has something in front that speaks TLS,
    /// when the service itself does not.
    pub fn origin(&self, bound: SocketAddr) -> String {
        let Authority { host, port } = self.advertised(bound);
        let is_https = self.tls.is_some() || port == Some(Origin::default_port(true));
        let port = port.filter(|port| *port != Origin::default_port(is_https));
        format!("{}://{}", if is_https { "https" } else { "http" }, Authority { host, port })
    }
}

/// Files of TLS, in PEM. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate of the service, with those between it and its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities of the certificates that clients may show.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show one.
    pub client_auth: ClientAuth,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// What clients of the port may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once. Those that have been idle longest make room for new ones.
    pub max_connections: usize,
    /// Most calls at once, those included that wait for an operation.
    pub max_in_flight: usize,
    /// Longest time for a handshake, and for the head of a request.
    pub header_timeout: Duration,
    /// How long the body of a request, or an answer, may stand still.
    pub body_timeout: Duration,
    /// How long a connection may stay without a call.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            // Ten thousand may wait for operations, and the others still find room.
            max_in_flight: 16_384,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
        }
    }
}

/// Reads what the section holds beside the addresses; also whether clear text beyond loopback is wanted.
pub(super) fn read(section: &mut Section<'_>, base: &Path) -> (Server, bool) {
    let advertise = section.optional_text("advertise").and_then(|text| {
        let authority = text.parse::<Authority>().map_err(|fault| section.fault("advertise", &fault)).ok()?;
        if authority.port == Some(0) {
            section.fault("advertise", "must be a host, and a port from 1 to 65535 when there is one");
        }
        Some(authority)
    });
    let allowed_hosts = names(section, "allowed_hosts", |text| text.parse::<Host>());
    let cors_origins = names(section, "cors_origins", |text| match text {
        "*" => {
            Err("must be an exact origin such as https://console.example.com; there is no `*`, because every page that a user opens would be let in".to_owned())
        }
        text => text.parse::<Origin>(),
    });
    let ignored_parameters = names(section, "ignored_parameters", |text| {
        let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '&' | '=' | '#');
        if !text.is_empty() && text.chars().all(legal) { Ok(text.to_owned()) } else { Err("must be the name of a query parameter, such as alt".to_owned()) }
    });
    let defaults = Limits::default();
    let times = Duration::from_millis(100)..=Duration::from_secs(3600);
    let limits = Limits {
        max_connections: section.integer("max_connections", defaults.max_connections as u64, 1..=1_000_000) as usize,
        max_in_flight: section.integer("max_in_flight", defaults.max_in_flight as u64, 1..=1_000_000) as usize,
        header_timeout: section.duration("header_timeout", defaults.header_timeout, times.clone()),
        body_timeout: section.duration("body_timeout", defaults.body_timeout, times.clone()),
        idle_timeout: section.duration("idle_timeout", defaults.idle_timeout, times),
    };
    // An empty section is one whose keys are missing: who writes it wants TLS.
    let has_tls = section.keys().iter().any(|key| key == "tls");
    let mut inner = section.section("tls");
    let tls = if has_tls { tls(&mut inner, base) } else { None };
    inner.end();
    let plaintext = section.flag("plaintext");
    if plaintext && tls.is_some() {
        section.fault("plaintext", "cannot stand beside [server.tls]: the port speaks one or the other");
    }
    (Server { advertise, allowed_hosts, cors_origins, ignored_parameters: ignored_parameters.into_iter().collect(), tls, limits }, plaintext)
}

fn names<T>(section: &mut Section<'_>, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let texts = section.texts(key);
    if texts.len() > NAMES {
        section.fault(key, &format!("must have at most {NAMES} entries"));
    }
    let mut names = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match read(text) {
            Ok(name) => names.push(name),
            Err(fault) => section.fault(&format!("{key}[{index}]"), &fault),
        }
    }
    names
}

fn tls(section: &mut Section<'_>, base: &Path) -> Option<Tls> {
    let mut file = |key: &str| section.optional_text(key).filter(|path| !path.is_empty()).map(|path| base.join(path));
    let (cert, key, client_ca) = (file("cert"), file("key"), file("client_ca"));
    let client_auth = match section.optional_text("client_auth").as_deref() {
        None | Some("optional") => ClientAuth::Optional,
        Some("required") => ClientAuth::Required,
        Some(_) => {
            section.fault("client_auth", "must be \"optional\" or \"required\"");
            ClientAuth::Required
        }
    };
    if client_auth == ClientAuth::Required && client_ca.is_none() {
        section.fault("client_ca", "must name the authorities of clients when client_auth is \"required\"");
    }
    for (key, path) in [("cert", &cert), ("key", &key)] {
        if path.is_none() {
            section.fault(key, "must name a file in PEM; `redkeep dev-certs DIR` makes files to try");
        }
    }
    for (key, path) in [("cert", &cert), ("key", &key), ("client_ca", &client_ca)] {
        if let Some(Err(fault)) = path.as_ref().map(std::fs::metadata) {
            section.fault(key, &format!("the file cannot be read: {}", fault.kind()));
        }
    }
    Some(Tls { cert: cert?, key: key?, client_ca, client_auth })
}

/// Whether nobody has to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// Everybody may do everything.
    None,
    /// Every caller is known.
    Required,
}

/// Whether a service may listen there: without a login only on loopback; in clear text beyond loopback only when that is
/// wanted. The fault is one of `server.listen`.
pub(super) fn exposure(listen: IpAddr, login: Login, has_tls: bool, plaintext: bool) -> Result<(), &'static str> {
    if listen.is_loopback() {
        return Ok(());
    }
    match login {
        Login::None => Err("must be a loopback address such as 127.0.0.1 while auth.mode is \"none\": whoever reaches the port can read all data"),
        Login::Required if has_tls || plaintext => Ok(()),
        Login::Required => Err("is beyond loopback in clear text, so that tokens and data can be read on the way; set server.tls.cert and server.tls.key, \
             or server.plaintext = true where something in front of it speaks TLS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_callers_are_known_and_the_line_is_closed() {
        let (near, far): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "0.0.0.0".parse().unwrap());
        for (listen, login, has_tls, plaintext, allowed) in [
            (near, Login::None, false, false, true),
            (near, Login::Required, false, false, true),
            (far, Login::None, false, false, false),
            (far, Login::None, true, false, false),
            (far, Login::None, false, true, false),
            (far, Login::Required, false, false, false),
            (far, Login::Required, true, false, true),
            (far, Login::Required, false, true, true),
        ] {
            assert_eq!(exposure(listen, login, has_tls, plaintext).is_ok(), allowed, "{listen} {login:?} {has_tls} {plaintext}");
        }
    }

    #[test]
    fn what_is_handed_out_has_a_port() {
        let server = |advertise: Option<&str>| Server { advertise: advertise.map(|text| text.parse().unwrap()), ..Server::default() };
        for (advertise, bound, told) in [
            (None, "127.0.0.1:7379", "localhost:7379"),
            (None, "[::1]:7379", "localhost:7379"),
            (None, "10.0.0.7:443", "10.0.0.7:443"),
            (Some("backups.example:443"), "0.0.0.0:7379", "backups.example:443"),
            (Some("backups.example"), "0.0.0.0:7379", "backups.example:7379"),
        ] {
            assert_eq!(server(advertise).advertised(bound.parse().unwrap()).to_string(), told);
        }
    }
}
