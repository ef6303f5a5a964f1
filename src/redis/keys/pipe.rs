//! One connection on which commands are sent without waiting for their answers.
//!
//! ```text
//! work, in order -> a task that writes          a task that reads -> answers, in order
//! ```

use super::super::connection::{Connection, Stream};
use super::super::{Error, Target, clean, tls};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longest line of an answer, in bytes.
const LINE_BYTES: usize = 64 * 1024;

/// Most bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// What is to be written.
pub(super) enum Work {
    /// Whole commands.
    Bytes(Bytes),
    /// Pieces of one command, until there are no more.
    Pieces(mpsc::Receiver<Bytes>),
}

/// The answer to one command. Only such are sent that are answered in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// `+text`
    Done,
    /// `:number`
    Number(i64),
    /// `-text`
    Refused(String),
}

/// What has become of a node.
pub(super) struct Told {
    /// Its number.
    pub(super) node: usize,
    /// Answers to the commands that were sent first; or why there will be no more.
    pub(super) answers: Result<Vec<Answer>, Error>,
}

/// A connection, which ends when it is dropped.
pub(super) struct Pipe {
    work: mpsc::UnboundedSender<Work>,
    tasks: [JoinHandle<()>; 2],
}

impl Pipe {
    /// Connects and logs in; answers go to `told` under the number of the node.
    pub(super) async fn open(target: &Target, node: usize, told: mpsc::Sender<Told>) -> Result<Self, Error> {
        let connection = Connection::open(target).await?;
        let (read, stream) = connection.into_parts();
        let (reading, writing) = tokio::io::split(stream);
        let (work, queue) = mpsc::unbounded_channel();
        let host = target.name.clone();
        let writer = {
            let (host, told) = (host.clone(), told.clone());
            tokio::spawn(async move {
                if let Err(fault) = write(writing, queue).await {
                    // Nobody waits for it when the restore is over.
                    let _ = told.send(Told { node, answers: Err(tls::fault(&host, &fault)) }).await;
                }
            })
        };
        let reader = tokio::spawn(async move {
            let fault = read_all(&host, reading, read, node, &told).await;
            let _ = told.send(Told { node, answers: Err(fault) }).await;
        });
        Ok(Self { work, tasks: [writer, reader] })
    }

    /// Queues work. How much there may be is for the caller to bound. Of a connection that is lost the reason is told.
    pub(super) fn send(&self, work: Work) {
        let _ = self.work.send(work);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn write(mut stream: WriteHalf<Box<dyn Stream>>, mut queue: mpsc::UnboundedReceiver<Work>) -> std::io::Result<()> {
    while let Some(work) = queue.recv().await {
        match work {
            Work::Bytes(bytes) => stream.write_all(&bytes).await?,
            Work::Pieces(mut pieces) => {
                while let Some(piece) = pieces.recv().await {
                    stream.write_all(&piece).await?;
                }
            }
        }
        if queue.is_empty() {
            // What is secured may wait in a buffer otherwise.
            stream.flush().await?;
        }
    }
    Ok(())
}

/// Reads answers until there is a fault.
async fn read_all(host: &str, mut stream: ReadHalf<Box<dyn Stream>>, mut buffer: Vec<u8>, node: usize, told: &mpsc::Sender<Told>) -> Error {
    let mut piece = vec![0; READ_BYTES];
    loop {
        let (answers, used) = match parse(&buffer) {
            Ok(parsed) => parsed,
            Err(what) => return Error::Protocol { host: host.to_owned(), what: what.to_owned() },
        };
        buffer.drain(..used);
        if buffer.len() > LINE_BYTES {
            return Error::Protocol { host: host.to_owned(), what: format!("a line of more than {LINE_BYTES} bytes") };
        }
        if !answers.is_empty() && told.send(Told { node, answers: Ok(answers) }).await.is_err() {
            return Error::Unreachable { host: host.to_owned(), what: "it is not needed any more".to_owned() };
        }
        match stream.read(&mut piece).await {
            Ok(0) => return Error::Unreachable { host: host.to_owned(), what: "it closed the connection".to_owned() },
            Ok(count) => buffer.extend_from_slice(&piece[..count]),
            Err(fault) => return tls::fault(host, &fault),
        }
    }
}

/// The whole answers at the front of `bytes`, and how many bytes they take.
fn parse(bytes: &[u8]) -> Result<(Vec<Answer>, usize), &'static str> {
    let (mut answers, mut at) = (Vec::new(), 0);
    while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + length];
        at += length + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        answers.push(match line {
            [b'+', ..] => Answer::Done,
            [b':', number @ ..] => {
                let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
                Answer::Number(number.ok_or("a number that is none")?)
            }
            [b'-', text @ ..] => Answer::Refused(clean(&String::from_utf8_lossy(text))),
            _ => return Err("an answer of another kind than the command has"),
        });
    }
    Ok((answers, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let (answers, used) = parse(b"+OK\r\n:-12\r\n-BUSYKEY Target\x1b key\r\n:5").unwrap();
        assert_eq!(answers, [Answer::Done, Answer::Number(-12), Answer::Refused("BUSYKEY Target  key".to_owned())]);
        assert_eq!(used, 5 + 6 + 22);
        for bad in ["$-1\r\n", "*1\r\n", "\r\n", ":x\r\n", ":\r\n"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(parse(b""), Ok((Vec::new(), 0)));
    }
}
