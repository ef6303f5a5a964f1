//! The connection to the service: how it is made, how long a call may take, how a list is fetched.

use super::error::{Error, Exit};
use super::{Connection, Output, Token};
use crate::pb::managed::backup_retention_policy_service_client::BackupRetentionPolicyServiceClient;
use crate::pb::managed::cluster_service_client::ClusterServiceClient;
use crate::pb::operation::operation_service_client::OperationServiceClient;
use crate::pb::own::backup_service_client::BackupServiceClient;
use crate::pb::own::fleet_service_client::FleetServiceClient;
use crate::pb::own::operation_service_client::OperationServiceClient as OperationWatchClient;
use std::path::Path;
use std::time::Duration;
use tokio::time;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};

/// Longest time to connect, name resolution included.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time for one call.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Largest answer taken: a page of rows with many shards.
const ANSWER_BYTES: usize = 64 << 20;
/// Most rows of one page; the service gives no more.
const PAGE_ROWS: usize = 1000;

/// A channel on which every call is logged in.
type Line = InterceptedService<Channel, Login>;

/// A connection with the user's wishes about answers.
pub(super) struct Session {
    line: Line,
    endpoint: String,
    /// Folder that lists are of.
    pub(super) folder: String,
    /// How answers are printed.
    pub(super) output: Output,
}

impl Session {
    /// Connects.
    pub(super) async fn open(args: Connection) -> Result<Self, Error> {
        let login = Login::new(args.token.as_ref())?;
        if login.authorization.is_some() && !args.endpoint.is_tls() && !args.endpoint.is_loopback() {
            let told = Error::new(Exit::Usage, format!("the token would be readable by others on the way to {}", args.endpoint));
            return Err(told.with_hint(format!("use TLS: --endpoint {}", args.endpoint.with_other_scheme())));
        }
        let endpoint = args.endpoint.to_string();
        let channel = connect(&args).await?;
        Ok(Self { line: InterceptedService::new(channel, login), endpoint, folder: args.folder, output: args.output })
    }

    /// Backups of every state.
    pub(super) fn backups(&self) -> BackupServiceClient<Line> {
        BackupServiceClient::new(self.line.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// Clusters as they are described.
    pub(super) fn clusters(&self) -> ClusterServiceClient<Line> {
        ClusterServiceClient::new(self.line.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// Retention policies of clusters.
    pub(super) fn policies(&self) -> BackupRetentionPolicyServiceClient<Line> {
        BackupRetentionPolicyServiceClient::new(self.line.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// Clusters as they are found.
    pub(super) fn fleet(&self) -> FleetServiceClient<Line> {
        FleetServiceClient::new(self.line.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// Operations: get and cancel.
    pub(super) fn operations(&self) -> OperationServiceClient<Line> {
        OperationServiceClient::new(self.line.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// Operations: list and wait.
    pub(super) fn operation_states(&self) -> OperationWatchClient<Line> {
        OperationWatchClient::new(self.line.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    /// Makes one call.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        self.call_within(CALL_LIMIT, call).await
    }

    /// Makes one call that changes something. An error says when it may have been made all the same.
    pub(super) async fn change<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        self.call(call).await.map_err(|error| {
            let hint = "it is not known whether the change was taken; look with: redkeep operation list";
            if error.is_unanswered() { error.with_hint(hint) } else { error }
        })
    }

    /// Makes one call that may take `limit`.
    pub(super) async fn call_within<T>(&self, limit: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        match time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&status, &self.endpoint)),
            Err(_) => Err(Error::unanswered(format!("no answer from {} within {limit:?}", self.endpoint))),
        }
    }

    /// Fetches a list page by page, up to `rows` rows, or all of them for 0.
    ///
    /// `page` asks for one page by its size and token, and gives its rows and the token of the next.
    pub(super) async fn pages<T, P>(&self, rows: usize, mut page: impl FnMut(i64, String) -> P) -> Result<List<T>, Error>
    where
        P: Future<Output = Result<Response<(Vec<T>, String)>, Status>>,
    {
        let mut list = List { rows: Vec::new(), is_cut: false };
        let mut token = String::new();
        loop {
            let missing = if rows == 0 { PAGE_ROWS } else { rows - list.rows.len() };
            let size = missing.min(PAGE_ROWS);
            let (mut some, next) = self.call(page(i64::try_from(size).unwrap_or_default(), token.clone())).await?;
            list.is_cut = some.len() > missing;
            some.truncate(missing);
            list.rows.append(&mut some);
            if next.is_empty() {
                return Ok(list);
            }
            if rows != 0 && list.rows.len() >= rows {
                list.is_cut = true;
                return Ok(list);
            }
            if next == token {
                return Err(Error::failed("the service gave the same page of the list twice"));
            }
            token = next;
        }
    }
}

/// Rows of a list.
pub(super) struct List<T> {
    /// The rows, in the order of the service.
    pub(super) rows: Vec<T>,
    /// Whether there are more.
    pub(super) is_cut: bool,
}

/// A request of a changing call, with the key that makes it safe to repeat.
pub(super) fn changing<T>(message: T, idempotency_key: Option<&str>) -> Result<Request<T>, Error> {
    let mut request = Request::new(message);
    if let Some(key) = idempotency_key {
        let key = key.parse().map_err(|_| Error::new(Exit::Usage, "the idempotency key has characters that cannot be sent"))?;
        request.metadata_mut().insert("idempotency-key", key);
    }
    Ok(request)
}

async fn connect(args: &Connection) -> Result<Channel, Error> {
    let address = &args.endpoint;
    let unreachable = |fault: tonic::transport::Error| Error::unreachable(address, &fault);
    let mut endpoint =
        Endpoint::from(address.uri()).connect_timeout(CONNECT_LIMIT).user_agent(concat!("redkeep/", env!("CARGO_PKG_VERSION"))).map_err(unreachable)?;
    if address.is_tls() {
        endpoint = endpoint.tls_config(trust(args)?).map_err(|fault| Error::untrusting(&fault))?;
    } else if args.ca.is_some() || args.cert.is_some() {
        let told = Error::new(Exit::Usage, format!("certificates are of no use with {address}, which speaks no TLS"));
        return Err(told.with_hint(format!("use TLS: --endpoint {}", address.with_other_scheme())));
    }
    match time::timeout(CONNECT_LIMIT, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(fault)) => Err(unreachable(fault)),
        Err(_) => Err(Error::new(Exit::Unreachable, format!("cannot reach {address}: no connection within {CONNECT_LIMIT:?}"))),
    }
}

/// Whom we trust, and who we are.
fn trust(args: &Connection) -> Result<ClientTlsConfig, Error> {
    let tls = match &args.ca {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    Ok(match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        _ => tls,
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|fault| Error::new(Exit::Usage, format!("{} cannot be read: {}", file.display(), fault.kind())))
}

/// Adds the token to every call.
#[derive(Clone)]
pub(super) struct Login {
    authorization: Option<MetadataValue<Ascii>>,
}

impl Login {
    fn new(token: Option<&Token>) -> Result<Self, Error> {
        let Some(secret) = token.map(Token::secret).filter(|secret| !secret.is_empty()) else { return Ok(Self { authorization: None }) };
        // The fault is not shown: it could hold a part of the token.
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {secret}").parse().map_err(|_| Error::new(Exit::Usage, "the token has characters that no token has"))?;
        value.set_sensitive(true);
        Ok(Self { authorization: Some(value) })
    }
}

impl Interceptor for Login {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    fn session() -> Session {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let line = InterceptedService::new(channel, Login { authorization: None });
        Session { line, endpoint: "http://127.0.0.1:1".to_owned(), folder: "default".to_owned(), output: Output::Table }
    }

    fn connection(endpoint: &str) -> Connection {
        let endpoint = endpoint.parse().unwrap();
        Connection { endpoint, ca: None, cert: None, key: None, token: None, folder: "default".to_owned(), output: Output::Table }
    }

    #[tokio::test]
    async fn a_token_does_not_travel_in_clear_text() {
        // Method: an address that is reserved for documentation; nothing is sent there.
        let token = Some(Token::from("sesame".to_owned()));
        let Err(error) = Session::open(Connection { token, ..connection("http://192.0.2.1:7379") }).await else { panic!("it was sent") };
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().ends_with("hint: use TLS: --endpoint https://192.0.2.1:7379"), "{error}");
        let ca = Some("ca.pem".into());
        let Err(error) = Session::open(Connection { ca, ..connection("http://127.0.0.1:1") }).await else { panic!("clear text was taken for TLS") };
        assert_eq!(error.exit(), Exit::Usage);
    }

    /// A list of `total` rows as the service would page it.
    fn page(total: i64, size: i64, token: &str) -> Response<(Vec<i64>, String)> {
        let from = token.parse().unwrap_or(0);
        let to = total.min(from + size);
        Response::new(((from..to).collect(), if to < total { to.to_string() } else { String::new() }))
    }

    #[tokio::test]
    async fn lists_end_at_their_limit_and_say_so() {
        for (total, rows, fetched, is_cut, calls) in
            [(0, 0, 0, false, 1), (2500, 0, 2500, false, 3), (2500, 100, 100, true, 1), (100, 100, 100, false, 1), (2500, 1500, 1500, true, 2)]
        {
            let mut asked = 0;
            let list = session()
                .pages(rows, |size, token| {
                    asked += 1;
                    assert!((1..=1000).contains(&size));
                    ready(Ok(page(total, size, &token)))
                })
                .await
                .unwrap();
            assert_eq!((list.rows.len(), list.is_cut, asked), (fetched, is_cut, calls), "{total} rows, {rows} wanted");
        }
    }

    #[tokio::test]
    async fn a_list_that_turns_in_circles_ends() {
        let outcome = session().pages(0, |_, _| ready(Ok(Response::new((vec![1], "again".to_owned()))))).await;
        assert!(outcome.is_err());
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable() {
        let mut client = session().operations();
        let request = crate::pb::operation::GetOperationRequest { operation_id: "x".to_owned() };
        let error = session().call(client.get(request)).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Unreachable);
        assert!(!error.to_string().contains("hint"), "{error}");
        let mut client = session().backups();
        let request = crate::pb::own::DeleteBackupRequest { backup_id: "x".to_owned() };
        let error = session().change(client.delete(request)).await.unwrap_err();
        assert!(error.to_string().contains("not known"), "{error}");
        let error = connect(&connection("http://127.0.0.1:1")).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Unreachable);
        assert!(error.to_string().starts_with("cannot reach http://127.0.0.1:1: connection refused\nhint: "), "{error}");
    }

    #[test]
    fn the_token_travels_as_a_bearer() {
        let token = Token::from("sesame\n".to_owned());
        let mut login = Login::new(Some(&token)).unwrap();
        let request = login.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer sesame");
        assert!(Login::new(Some(&Token::from(String::new()))).unwrap().authorization.is_none());
        let Err(error) = Login::new(Some(&Token::from("se\nsame".to_owned()))) else { panic!("a line feed was taken") };
        assert!(!error.to_string().contains("same"));
    }
}
