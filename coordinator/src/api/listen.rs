//! Connections: a bounded number, each with a bounded time for a request's head, HTTP/1.1 alone.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Bounds of the connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// At once; more wait until they are accepted.
    pub connections: usize,
    /// How long a connection may take to send a request's head, also between two requests.
    pub header_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 256, header_timeout: Duration::from_secs(10) }
    }
}

/// The largest head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// The pause after the system did not give a connection: it has no descriptors left, for example.
const PAUSE: Duration = Duration::from_millis(100);
/// How long answers that have begun may take after the stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Answers until `soft` is cancelled; what has begun then is answered, what waits for a request ends.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    soft: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
            () = soft.cancelled() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            },
            () = soft.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(router.clone());
        let soft = soft.clone();
        connections.spawn(async move {
            let _place = place;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.header_timeout)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = soft.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = timeout(LAST_ANSWERS, connection).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
