use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use alloy::primitives::{U64, U256};
use reqwest::Url;
use serde::{Serialize, de::DeserializeOwned};
use task::{Address, BlockRef, Hash};
use tokio::sync::watch;

use crate::{
    Endpoints, Error,
    block::At,
    confirmation::is_development,
    endpoint::{Endpoint, is_web_socket},
};

const FIRST_REST: Duration = Duration::from_millis(200);
const LONGEST_REST: Duration = Duration::from_secs(15);
const WRONG_CHAIN_REST: Duration = Duration::from_secs(30);

/// How endpoints are used.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// Longest time for one call.
    pub request_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(10) }
    }
}

/// One chain, through the first of its endpoints that works. A clone shares everything.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    endpoints: Vec<Arc<Endpoint>>,
    web_sockets: Vec<Url>,
    identity: Identity,
    heads: watch::Sender<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    chain_id: u64,
    genesis: Hash,
}

impl Client {
    /// Takes the chain of the first endpoint that answers for the chain that is meant; every other one has to serve
    /// the same before it is used. Calls go to HTTP endpoints, and to WebSockets only when there is nothing else.
    pub async fn connect(endpoints: &Endpoints, options: ClientOptions) -> Result<Self, Error> {
        let (web_sockets, http): (Vec<_>, Vec<_>) =
            endpoints.urls.iter().cloned().partition(is_web_socket);
        let callable = if http.is_empty() { &web_sockets } else { &http };
        let endpoints = callable
            .iter()
            .map(|url| Endpoint::new(url.clone(), options.request_timeout).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let mut found = Err(Error::Resting { retry_after: FIRST_REST, last: String::new() });
        for endpoint in &endpoints {
            found = identity(endpoint).await;
            match &found {
                Ok(_) => break,
                Err(error) => rest(endpoint, error),
            }
        }
        let identity = found?;
        let inner = Inner { endpoints, web_sockets, identity, heads: watch::Sender::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The chain's id.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.inner.identity.chain_id
    }

    /// Hash of the chain's block 0.
    #[must_use]
    pub fn genesis(&self) -> Hash {
        self.inner.identity.genesis
    }

    /// Whether it is a development chain: Anvil's, Hardhat's or Geth's.
    #[must_use]
    pub fn is_development(&self) -> bool {
        is_development(self.chain_id())
    }

    /// The newest block.
    pub async fn head(&self) -> Result<BlockRef, Error> {
        let endpoint = self.endpoint().await?;
        let head = endpoint.head().await;
        self.report(&endpoint, &head);
        Ok(head?.block())
    }

    /// An account's balance, in wei.
    pub async fn balance(&self, address: Address) -> Result<u128, Error> {
        let balance: U256 =
            self.call("eth_getBalance", &(address.to_string(), At::Latest.text())).await?;
        Ok(balance.saturating_to())
    }

    pub(crate) fn web_sockets(&self) -> &[Url] {
        &self.inner.web_sockets
    }

    /// Rises whenever there may be a new block.
    pub(crate) fn heads(&self) -> watch::Receiver<u64> {
        self.inner.heads.subscribe()
    }

    pub(crate) fn announce_head(&self) {
        self.inner.heads.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Calls a method; when an endpoint fails the next one is asked.
    pub(crate) async fn call<P: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &P,
    ) -> Result<R, Error> {
        let mut last = None;
        for _ in 0..self.inner.endpoints.len() {
            let endpoint = match self.endpoint().await {
                Ok(endpoint) => endpoint,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let answer = endpoint.call(method, params).await;
            self.report(&endpoint, &answer);
            match answer {
                Err(error) if error.is_endpoints() => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or(Error::Resting { retry_after: FIRST_REST, last: String::new() }))
    }

    /// The first endpoint that works and serves the right chain. Reads that belong together go to one of them.
    pub(crate) async fn endpoint(&self) -> Result<Arc<Endpoint>, Error> {
        let mut retry_after = LONGEST_REST;
        let mut last = String::new();
        for endpoint in &self.inner.endpoints {
            let (until, verified) = {
                let rest = endpoint.rest.lock().unwrap_or_else(PoisonError::into_inner);
                if last.is_empty() {
                    last.clone_from(&rest.last);
                }
                (rest.until, rest.verified)
            };
            if let Some(left) = until.and_then(|until| until.checked_duration_since(Instant::now()))
            {
                retry_after = retry_after.min(left);
                continue;
            }
            if verified {
                return Ok(Arc::clone(endpoint));
            }
            match self.verify(endpoint).await {
                Ok(()) => return Ok(Arc::clone(endpoint)),
                Err(error) => {
                    rest(endpoint, &error);
                    retry_after = retry_after.min(error.retry_after().unwrap_or(FIRST_REST));
                    last = error.to_string();
                }
            }
        }
        Err(Error::Resting { retry_after, last })
    }

    /// Remembers how an endpoint did: one that failed is left alone for a while and checked before it is used again.
    pub(crate) fn report<T>(&self, endpoint: &Endpoint, answer: &Result<T, Error>) {
        match answer {
            Err(error) if error.is_endpoints() => rest(endpoint, error),
            _ => {
                let mut rest = endpoint.rest.lock().unwrap_or_else(PoisonError::into_inner);
                rest.failures = 0;
                rest.until = None;
            }
        }
    }

    async fn verify(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let Identity { chain_id, genesis } = identity(endpoint).await?;
        let wanted = self.inner.identity;
        if (Identity { chain_id, genesis }) != wanted {
            let error = Error::WrongChain {
                endpoint: endpoint.shown().to_owned(),
                chain_id,
                genesis,
                wanted_id: wanted.chain_id,
                wanted_genesis: wanted.genesis,
            };
            tracing::error!(endpoint = endpoint.shown(), "refused: {error}");
            return Err(error);
        }
        endpoint.rest.lock().unwrap_or_else(PoisonError::into_inner).verified = true;
        Ok(())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> =
            self.inner.endpoints.iter().map(|endpoint| endpoint.shown()).collect();
        f.debug_struct("Client")
            .field("endpoints", &endpoints)
            .field("chain_id", &self.chain_id())
            .finish_non_exhaustive()
    }
}

async fn identity(endpoint: &Endpoint) -> Result<Identity, Error> {
    let chain_id: U64 = endpoint.call("eth_chainId", &[(); 0]).await?;
    let genesis = endpoint
        .header(At::Number(0))
        .await?
        .ok_or_else(|| endpoint.unreadable("eth_getBlockByNumber", "there is no block 0"))?;
    Ok(Identity { chain_id: chain_id.to(), genesis: genesis.block().hash })
}

fn rest(endpoint: &Endpoint, error: &Error) {
    let mut rest = endpoint.rest.lock().unwrap_or_else(PoisonError::into_inner);
    let backoff = FIRST_REST.saturating_mul(1 << rest.failures.min(10)).min(LONGEST_REST);
    let pause = match error {
        Error::WrongChain { .. } => WRONG_CHAIN_REST,
        other => other.retry_after().map_or(backoff, |asked| asked.max(FIRST_REST)),
    };
    rest.failures += 1;
    rest.until = Some(Instant::now() + pause);
    rest.last = error.to_string();
    rest.verified = false;
}
