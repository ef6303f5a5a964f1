//! Sentinels: where the servers are that they watch, by the name that they have for them.

use super::connection::{Connection, Reply};
use super::{Address, Credentials, Error, Target};
use crate::redis::tls::Tls;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// Most sentinels of one cluster.
pub const SENTINELS: usize = 32;

/// Most replicas that a sentinel tells of that are looked at.
const REPLICAS: usize = 64;

/// What the sentinels say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Where most of them say that the primary is.
    pub primary: Option<Address>,
    /// Where any of them says that a replica is.
    pub replicas: Vec<Address>,
    /// Why the others said nothing.
    pub faults: Vec<Error>,
}

/// Asks all sentinels at once, each within `limit`. Never fails: one that does not answer is part of the answer.
pub async fn ask(nodes: &[Address], master: &str, credentials: &Credentials, tls: Option<&Tls>, limit: Duration) -> Told {
    let asking = nodes.iter().take(SENTINELS).map(|address| {
        let target = Target { name: format!("sentinel {address}"), address: address.clone(), credentials: credentials.clone(), tls: tls.cloned() };
        async move {
            match timeout(limit, ask_one(&target, master)).await {
                Ok(answer) => answer,
                Err(_) => Err(Error::Unreachable { host: target.name.clone(), what: format!("no answer within {} ms", limit.as_millis()) }),
            }
        }
    });
    let (mut told, mut votes) = (Told::default(), BTreeMap::<Address, usize>::new());
    for answer in join_all(asking).await {
        match answer {
            Ok((primary, replicas)) => {
                *votes.entry(primary).or_default() += 1;
                let room = REPLICAS.saturating_sub(told.replicas.len());
                let new: Vec<Address> = replicas.into_iter().filter(|address| !told.replicas.contains(address)).take(room).collect();
                told.replicas.extend(new);
            }
            Err(fault) => told.faults.push(fault),
        }
    }
    told.primary = votes.into_iter().max_by_key(|(_, count)| *count).map(|(address, _)| address);
    told
}

async fn ask_one(target: &Target, master: &str) -> Result<(Address, Vec<Address>), Error> {
    let mut connection = Connection::open(target).await?;
    let reply = connection.call(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", master.as_bytes()]).await?;
    let [host, port] = reply.elements() else {
        return Err(Error::Role { host: target.name.clone(), what: format!("it watches no primary named {}", super::clean(master)) });
    };
    let odd = |what: &str| Error::Protocol { host: target.name.clone(), what: format!("an odd reply to SENTINEL {what}") };
    let primary = join(host, port).ok_or_else(|| odd("GET-MASTER-ADDR-BY-NAME"))?;
    let reply = connection.call(&[b"SENTINEL", b"REPLICAS", master.as_bytes()]).await?;
    Ok((primary, reply.elements().iter().filter_map(replica).collect()))
}

/// The address in the fields of one replica. One without a port is a client that took a snapshot, and no server.
fn replica(fields: &Reply) -> Option<Address> {
    let field = |name: &str| fields.elements().chunks_exact(2).find(|pair| pair[0].text().as_deref() == Some(name)).map(|pair| &pair[1]);
    join(field("ip")?, field("port")?)
}

fn join(host: &Reply, port: &Reply) -> Option<Address> {
    let (host, port) = (host.text()?, port.text()?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("{host}:{port}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_without_a_port_is_none() {
        let bulk = |text: &str| Reply::Bulk(Some(text.as_bytes().to_vec()));
        let fields = |port: &str| Reply::Array(Some(["name", "x", "ip", "10.0.0.1", "port", port].map(bulk).to_vec()));
        assert_eq!(replica(&fields("6379")).map(|address| address.to_string()), Some("10.0.0.1:6379".to_owned()));
        assert_eq!(replica(&fields("0")), None);
        assert_eq!(replica(&bulk("x")), None);
    }
}
