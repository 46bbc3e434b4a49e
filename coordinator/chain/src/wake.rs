//! WebSocket subscriptions that only wake: what they say is never read, and polling goes on without them.

use std::time::Duration;

use alloy::providers::{Provider, RootProvider};
use futures::future::join_all;
use reqwest::Url;

use crate::{
    Client,
    endpoint::{connect, redacted},
};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A socket that is not open by then is given up.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// A subscription that was silent for so long may be half-open: it is made anew.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// Announces a head whenever a WebSocket says so. It never ends.
pub(crate) async fn listen(client: &Client) {
    join_all(client.web_sockets().iter().map(|url| follow(client, url))).await;
    std::future::pending::<()>().await;
}

async fn follow(client: &Client, url: &Url) {
    let mut pause = FIRST_PAUSE;
    loop {
        let heard = subscribe(client, url).await;
        pause = if heard > 0 { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tracing::debug!(endpoint = redacted(url), heard, "the subscription ended; polling goes on");
        tokio::time::sleep(pause).await;
    }
}

/// Follows one subscription until it breaks; answers how many heads came.
async fn subscribe(client: &Client, url: &Url) -> u64 {
    let opened = tokio::time::timeout(OPEN_WITHIN, async {
        let provider: RootProvider = RootProvider::new(connect(url).await.ok()?);
        let subscribed = provider.subscribe::<_, serde_json::Value>(("newHeads",)).await.ok()?;
        Some((provider, subscribed))
    });
    // The provider holds the connection.
    let Ok(Some((_provider, mut subscription))) = opened.await else { return 0 };
    let mut heard = 0;
    loop {
        match tokio::time::timeout(LONGEST_SILENCE, subscription.recv_any()).await {
            Err(_) => return heard,
            Ok(Ok(_)) => heard += 1,
            Ok(Err(error)) => {
                // Missing some is fine, each only says "look".
                if !matches!(error, tokio::sync::broadcast::error::RecvError::Lagged(_)) {
                    return heard;
                }
            }
        }
        client.announce_head();
    }
}
