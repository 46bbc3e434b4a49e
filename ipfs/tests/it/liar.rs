//! An HTTP server that does to its clients whatever a script says, byte by byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipfs::Url;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One thing done to the connection; it is closed after the last.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// The same again and again, until the client has had enough.
    Forever(Vec<u8>),
    /// A byte at a time.
    Drip(Vec<u8>, Duration),
    /// Nothing, until the client has had enough.
    Hold,
}

pub(crate) struct Liar {
    pub(crate) root: Url,
    requests: watch::Receiver<usize>,
    seen: Arc<Mutex<Vec<String>>>,
    /// Ends all connections when dropped.
    _tasks: JoinSet<()>,
}

impl Liar {
    /// `script` gets the request's line and its number, from 0.
    pub(crate) async fn start(
        script: impl Fn(&str, usize) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (counter, requests) = watch::channel(0);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&seen);
        let script = Arc::new(script);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, lines, counter) =
                    (Arc::clone(&script), Arc::clone(&lines), counter.clone());
                connections.spawn(async move {
                    // A client that leaves is what many scripts are about.
                    let _ = serve(stream, |line| {
                        let number = {
                            let mut lines = lines.lock().expect("lock");
                            lines.push(line.to_owned());
                            lines.len() - 1
                        };
                        counter.send_replace(number + 1);
                        script(line, number)
                    })
                    .await;
                });
            }
        });
        Self {
            root: format!("http://{address}/ipfs").parse().expect("a URL"),
            requests,
            seen,
            _tasks: tasks,
        }
    }

    /// One that answers everything alike.
    pub(crate) async fn always(steps: Vec<Step>) -> Self {
        Self::start(move |_, _| steps.clone()).await
    }

    /// The request lines so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("lock").clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn requests(&self, count: usize) {
        let mut requests = self.requests.clone();
        tokio::time::timeout(Duration::from_secs(10), requests.wait_for(|seen| *seen >= count))
            .await
            .unwrap_or_else(|_| panic!("{count} requests were expected, came: {:?}", self.seen()))
            .expect("the server runs");
    }
}

async fn serve(stream: TcpStream, script: impl Fn(&str) -> Vec<Step>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    read.read_line(&mut line).await?;
    let mut body_bytes = 0;
    loop {
        let mut header = String::new();
        if read.read_line(&mut header).await? <= 2 {
            break;
        }
        if let Some(length) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            body_bytes = length.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; body_bytes];
    read.read_exact(&mut body).await?;
    for step in script(line.trim_end()) {
        match step {
            Step::Send(bytes) => write.write_all(&bytes).await?,
            Step::Forever(bytes) => loop {
                write.write_all(&bytes).await?;
            },
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    write.write_all(&[byte]).await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Step::Hold => {
                read.read_to_end(&mut body).await?;
            }
        }
    }
    write.shutdown().await
}

/// The head of an answer; `headers` are whole lines, each with its end.
pub(crate) fn head(status: &str, headers: &str) -> Step {
    Step::Send(format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n").into_bytes())
}

/// An honest answer.
pub(crate) fn ok(body: &[u8]) -> Vec<Step> {
    vec![head("200 OK", &format!("Content-Length: {}\r\n", body.len())), Step::Send(body.to_vec())]
}

/// Any other status without a body.
pub(crate) fn status(status: &str, headers: &str) -> Vec<Step> {
    vec![head(status, &format!("{headers}Content-Length: 0\r\n"))]
}
