//! Whether replicas of a server are synchronising with it, beside us.
//!
//! A server that sends one snapshot to several readers goes at the pace of the slowest of them, so a replica in the same
//! round depends on us.

use super::connection::Connection;
use super::{Error, Target};

/// Most lines of replicas that are looked at.
const REPLICAS: usize = 256;

/// A connection on which a server is asked about its replicas again and again.
pub struct Company(Connection);

impl Company {
    /// Connects.
    ///
    /// # Errors
    ///
    /// As [`Connection::open`].
    pub async fn open(target: &Target) -> Result<Self, Error> {
        Connection::open(target).await.map(Self)
    }

    /// Whether a replica is waiting for a snapshot, or receiving one.
    ///
    /// # Errors
    ///
    /// What the connection or the server says.
    pub async fn is_synchronising(&mut self) -> Result<bool, Error> {
        let reply = self.0.call(&[b"INFO", b"replication"]).await?;
        Ok(reply.text().is_some_and(|text| synchronising(&text)))
    }
}

/// Whether the text of INFO lists a replica that is not in step yet. A reader that tells no port, such as a backup, is no
/// replica.
fn synchronising(info: &str) -> bool {
    let replicas = info.lines().filter(|line| {
        let rest = line.strip_prefix("slave").and_then(|rest| rest.split_once(':'));
        rest.is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    replicas.take(REPLICAS).any(|line| {
        let field = |name: &str| line.split([':', ',']).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let is_replica = field("port").is_some_and(|port| port.trim() != "0");
        is_replica && field("state").is_some_and(|state| matches!(state.trim(), "wait_bgsave" | "send_bulk" | "bg_transfer" | "send_bulk_and_stream"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_told_from_readers() {
        let info = |lines: &str| format!("# Replication\r\nrole:master\r\nconnected_slaves:1\r\n{lines}\r\nmaster_replid:ff\r\n");
        for (line, expected) in [
            ("slave0:ip=10.0.0.1,port=6379,state=wait_bgsave,offset=0,lag=0", true),
            ("slave0:ip=10.0.0.1,port=6379,state=send_bulk,offset=0,lag=0,type=replica", true),
            ("slave0:ip=10.0.0.1,port=6379,state=online,offset=7,lag=0", false),
            ("slave0:ip=127.0.0.1,port=0,state=wait_bgsave,offset=0,lag=0", false),
            ("slave0:ip=127.0.0.1,port=0,state=wait_bgsave\r\nslave17:ip=::1,port=1,state=send_bulk", true),
            ("slave_priority:100", false),
            ("slave_read_only:1", false),
            ("slave:port=1,state=send_bulk", false),
            ("", false),
        ] {
            assert_eq!(synchronising(&info(line)), expected, "{line}");
        }
    }
}
