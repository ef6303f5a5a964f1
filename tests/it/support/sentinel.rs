//! Real sentinels over a primary with replicas.

use super::resp::Value;
use super::server::{RedisServer, Version};
use super::until;
use std::path::PathBuf;
use std::time::Duration;

/// The name by which the sentinels know the primary.
pub const MASTER: &str = "main";

/// Time for sentinels to see one another and all replicas.
const SEE_BOUND: Duration = Duration::from_secs(60);

/// Time for a failover.
const FAILOVER_BOUND: Duration = Duration::from_secs(90);

/// What the sentinels are started with.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Layout {
    program: Option<PathBuf>,
    password: Option<String>,
    server_password: Option<String>,
}

impl Layout {
    /// Another program than the default. A script must `exec` the server.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Password of the sentinels themselves.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Password of the servers that they watch.
    pub fn server_password(mut self, password: &str) -> Self {
        self.server_password = Some(password.to_owned());
        self
    }

    /// Starts so many over a primary, and waits until each has seen the others and all replicas.
    pub async fn start(self, count: usize, primary: &RedisServer, replicas: usize) -> Sentinels {
        let quorum = count / 2 + 1;
        let mut servers = Vec::new();
        for _ in 0..count {
            let mut builder = RedisServer::builder().sentinel();
            if let Some(program) = &self.program {
                builder = builder.program(program);
            }
            builder = builder.config(&format!("sentinel monitor {MASTER} 127.0.0.1 {} {quorum}", primary.port()));
            if let Some(password) = &self.server_password {
                builder = builder.config(&format!("sentinel auth-pass {MASTER} {password}"));
            }
            builder = builder.config(&format!("sentinel down-after-milliseconds {MASTER} 3000")).config(&format!("sentinel failover-timeout {MASTER} 20000"));
            if let Some(password) = &self.password {
                builder = builder.password(password).config(&format!("sentinel sentinel-pass {password}"));
            }
            servers.push(builder.start().await);
        }
        let sentinels = Sentinels { servers };
        for server in &sentinels.servers {
            until("a sentinel has seen all", SEE_BOUND, async || {
                let seen = sentinels.seen(server).await;
                (seen.replicas.len() == replicas && seen.others == count - 1).then_some(())
            })
            .await;
        }
        sentinels
    }
}

/// What one sentinel sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Address of the primary.
    pub primary: String,
    /// Addresses of the replicas, sorted.
    pub replicas: Vec<String>,
    /// Other sentinels.
    pub others: usize,
}

/// Running sentinels, killed on drop.
#[derive(Debug)]
pub struct Sentinels {
    /// The processes.
    pub servers: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts so many with the defaults.
    pub async fn start(count: usize, primary: &RedisServer, replicas: usize) -> Self {
        Layout::default().start(count, primary, replicas).await
    }

    /// Their addresses.
    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::address).collect()
    }

    /// Version of the program.
    pub fn version(&self) -> Version {
        self.servers[0].version()
    }

    /// What one of them sees.
    pub async fn seen(&self, server: &RedisServer) -> Seen {
        let primary = server.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await;
        let fields = |item: &Value| -> std::collections::BTreeMap<String, String> {
            item.items().chunks_exact(2).map(|pair| (pair[0].text(), pair[1].text())).collect()
        };
        let mut replicas: Vec<_> = server
            .command(&["SENTINEL", "REPLICAS", MASTER])
            .await
            .items()
            .iter()
            .map(|item| {
                let fields = fields(item);
                format!("{}:{}", fields["ip"], fields["port"])
            })
            .collect();
        replicas.sort();
        let others = server.command(&["SENTINEL", "SENTINELS", MASTER]).await.items().len();
        let primary = primary.items().iter().map(Value::text).collect::<Vec<_>>().join(":");
        Seen { primary, replicas, others }
    }

    /// Has another server made the primary, and waits until all see it. Tells its address.
    pub async fn fail_over(&self) -> String {
        let before = self.seen(&self.servers[0]).await.primary;
        until("a failover begins", FAILOVER_BOUND, async || self.servers[0].command(&["SENTINEL", "FAILOVER", MASTER]).await.error().is_none().then_some(()))
            .await;
        until("all see the new primary", FAILOVER_BOUND, async || {
            let mut primaries = Vec::new();
            for server in &self.servers {
                primaries.push(self.seen(server).await.primary);
            }
            let new = primaries[0].clone();
            (new != before && primaries.iter().all(|primary| *primary == new)).then_some(new)
        })
        .await
    }
}
