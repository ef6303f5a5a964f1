//! The section `[restore]`: how the feed is reached by a server that is restored into, and which servers may be.

use super::section::Section;
use crate::executor::RestoreOptions;
use crate::redis::feed::{self, Advertised, TlsFiles};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::Path;

/// Most networks.
const NETWORKS: usize = 256;

/// Reads the section; faults are noted in it.
pub(super) fn read(mut section: Section<'_>, base: &Path) -> RestoreOptions {
    let listen = section.optional_text("feed_listen").and_then(|text| {
        let address = text.replace("localhost", "127.0.0.1").parse::<SocketAddr>();
        address.inspect_err(|_| section.fault("feed_listen", "must be an address and a port, such as 10.0.0.5:16379; port 0 is any free one")).ok()
    });
    let advertise = section.optional_text("feed_advertise").and_then(|text| {
        let advertised = text.parse::<Advertised>();
        advertised.inspect_err(|fault| section.fault("feed_advertise", &fault.to_string())).ok()
    });
    let mut tls = section.section("feed_tls");
    let (cert, key) = (tls.optional_text("cert"), tls.optional_text("key"));
    let files = tls.pair(cert, key).map(|(cert, key)| {
        let files = TlsFiles { cert: base.join(cert), key: base.join(key) };
        if let Err(fault) = files.acceptor() {
            tls.fault("cert", &fault.to_string());
        }
        files
    });
    tls.end();
    let allow = match section.value("allow") {
        None => RestoreOptions::default().allow,
        Some(toml::Value::Array(values)) => networks(&section, values),
        Some(_) => {
            section.fault("allow", "must be a list of networks, such as [\"127.0.0.0/8\", \"10.1.0.0/16\"]");
            Vec::new()
        }
    };
    section.end();
    RestoreOptions { feed: feed::Options { listen, advertise, tls: files }, allow }
}

fn networks(section: &Section<'_>, values: Vec<toml::Value>) -> Vec<IpNet> {
    if values.len() > NETWORKS {
        section.fault("allow", &format!("must be at most {NETWORKS} networks"));
    }
    let mut networks = Vec::new();
    for (index, value) in values.iter().enumerate().take(NETWORKS) {
        match value.as_str().and_then(|text| text.parse().ok()) {
            Some(network) => networks.push(network),
            None => section.fault(&format!("allow[{index}]"), "must be a network, such as 10.1.0.0/16"),
        }
    }
    networks
}
