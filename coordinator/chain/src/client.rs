use std::{
    fmt,
    sync::{Arc, MutexGuard, PoisonError},
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
    endpoint::{Endpoint, LONGEST_RETRY_AFTER, Rest, is_web_socket},
};

const FIRST_REST: Duration = Duration::from_millis(200);
const LONGEST_REST: Duration = Duration::from_secs(15);
/// The longest rest of an endpoint that answers, but behind what is known.
const LONGEST_BEHIND_REST: Duration = Duration::from_secs(1);
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

/// How an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint, without what may be secret in its URL.
    pub endpoint: String,
    /// The code of what it failed with last and a sentence, while it fails.
    pub problem: Option<(&'static str, String)>,
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
        Self::connect_to(endpoints, options, None).await
    }

    /// Takes the first endpoint that serves this chain, by id and hash of block 0. When all of them answer and none
    /// does, that is the error.
    pub async fn connect_to(
        endpoints: &Endpoints,
        options: ClientOptions,
        known: Option<(u64, Hash)>,
    ) -> Result<Self, Error> {
        let (web_sockets, http): (Vec<_>, Vec<_>) =
            endpoints.urls.iter().cloned().partition(is_web_socket);
        let callable = if http.is_empty() { &web_sockets } else { &http };
        let endpoints = callable
            .iter()
            .map(|url| Endpoint::new(url.clone(), options.request_timeout).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let known = known.map(|(chain_id, genesis)| Identity { chain_id, genesis });
        let mut failed = None;
        for endpoint in &endpoints {
            match identity_as(endpoint, known).await {
                Ok(identity) => {
                    let heads = watch::Sender::new(0);
                    let inner = Inner { endpoints, web_sockets, identity, heads };
                    return Ok(Self { inner: Arc::new(inner) });
                }
                Err(error) => {
                    rest(endpoint, &error);
                    // One that could not be asked may be the right one.
                    if failed.as_ref().is_none_or(|failed: &Error| !failed.retry()) {
                        failed = Some(error);
                    }
                }
            }
        }
        Err(failed.unwrap_or(Error::Resting { retry_after: FIRST_REST, last: String::new() }))
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

    /// The endpoints that calls go to, in order of preference, as far as is known. One that was not used lately is looked
    /// at in the background.
    pub fn endpoints(&self) -> Vec<EndpointHealth> {
        let endpoints = self.inner.endpoints.iter();
        endpoints
            .map(|endpoint| {
                let (idle, problem) = {
                    let rest = lock(endpoint);
                    let fails = !rest.verified && rest.failures > 0;
                    let problem = fails.then(|| (rest.code, rest.last.clone()));
                    (!rest.verified && left(&rest).is_zero(), problem)
                };
                if idle {
                    self.probe(endpoint);
                }
                EndpointHealth { endpoint: endpoint.shown().to_owned(), problem }
            })
            .collect()
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

    /// Calls a method; when an endpoint fails the next one is asked. What all of them say is told as they say it.
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

    /// The first endpoint that works and serves the right chain. Reads that belong together go to one of them. One
    /// that failed is looked at in the background while there is another one.
    pub(crate) async fn endpoint(&self) -> Result<Arc<Endpoint>, Error> {
        let mut retry_after = LONGEST_RETRY_AFTER;
        let mut said: Vec<String> = Vec::new();
        let one_is_ready = self.inner.endpoints.iter().any(|endpoint| is_ready(endpoint));
        for endpoint in &self.inner.endpoints {
            let (left, verified) = {
                let rest = lock(endpoint);
                let left = left(&rest);
                if !left.is_zero() {
                    said.push(rest.last.clone());
                }
                (left, rest.verified)
            };
            if !left.is_zero() {
                retry_after = retry_after.min(left);
                continue;
            }
            if verified {
                return Ok(Arc::clone(endpoint));
            }
            if one_is_ready {
                self.probe(endpoint);
                continue;
            }
            match Box::pin(self.verify(endpoint)).await {
                Ok(()) => return Ok(Arc::clone(endpoint)),
                Err(error) => {
                    retry_after = retry_after.min(rest(endpoint, &error));
                    said.push(error.to_string());
                }
            }
        }
        let last = said.join("; ");
        Err(Error::Resting { retry_after, last })
    }

    /// Another endpoint than this one, if one is ready; one that is not is looked at in the background.
    pub(crate) fn another(&self, than: &Endpoint) -> Option<Arc<Endpoint>> {
        let others =
            || self.inner.endpoints.iter().filter(|other| !std::ptr::eq(other.as_ref(), than));
        for other in others() {
            let idle = {
                let rest = lock(other);
                left(&rest).is_zero() && !rest.verified
            };
            if idle {
                self.probe(other);
            }
        }
        others().find(|other| is_ready(other)).map(Arc::clone)
    }

    /// How long nobody can be asked.
    pub(crate) fn rests_for(&self) -> Duration {
        let left = self.inner.endpoints.iter().map(|endpoint| left(&lock(endpoint)));
        left.min().unwrap_or_default()
    }

    /// Looks in the background whether an endpoint is well.
    fn probe(&self, endpoint: &Arc<Endpoint>) {
        if std::mem::replace(&mut lock(endpoint).probing, true) {
            return;
        }
        let (client, endpoint) = (self.clone(), Arc::clone(endpoint));
        tokio::spawn(async move {
            let verified = client.verify(&endpoint).await;
            if let Err(error) = verified {
                rest(&endpoint, &error);
            }
            lock(&endpoint).probing = false;
        });
    }

    /// Remembers how an endpoint did: one that failed is left alone for a while and checked before it is used again.
    pub(crate) fn report<T>(&self, endpoint: &Endpoint, answer: &Result<T, Error>) {
        match answer {
            Err(error) if error.is_endpoints() => {
                rest(endpoint, error);
            }
            _ => {
                let mut rest = lock(endpoint);
                rest.failures = 0;
                rest.until = None;
            }
        }
    }

    async fn verify(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let verified = identity_as(endpoint, Some(self.inner.identity)).await;
        if let Err(error @ Error::WrongChain { .. }) = &verified {
            tracing::error!(endpoint = endpoint.shown(), %error, "an endpoint is refused");
        }
        verified?;
        lock(endpoint).verified = true;
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

/// The chain that an endpoint serves, which has to be this one.
async fn identity_as(endpoint: &Endpoint, wanted: Option<Identity>) -> Result<Identity, Error> {
    let found = identity(endpoint).await?;
    match wanted {
        Some(wanted) if found != wanted => Err(Error::WrongChain {
            endpoint: endpoint.shown().to_owned(),
            chain_id: found.chain_id,
            genesis: found.genesis,
            wanted_id: wanted.chain_id,
            wanted_genesis: wanted.genesis,
        }),
        _ => Ok(found),
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

fn lock(endpoint: &Endpoint) -> MutexGuard<'_, Rest> {
    endpoint.rest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an endpoint is left alone still.
fn left(rest: &Rest) -> Duration {
    let left = rest.until.and_then(|until| until.checked_duration_since(Instant::now()));
    left.unwrap_or_default()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    let rest = lock(endpoint);
    rest.verified && left(&rest).is_zero()
}

/// Leaves an endpoint alone for a while; answers for how long.
fn rest(endpoint: &Endpoint, error: &Error) -> Duration {
    let mut rest = lock(endpoint);
    let backoff = FIRST_REST.saturating_mul(1 << rest.failures.min(10)).min(LONGEST_REST);
    let pause = match error {
        Error::WrongChain { .. } => WRONG_CHAIN_REST,
        Error::Status { retry_after: Some(asked), .. } => {
            (*asked).clamp(FIRST_REST, LONGEST_RETRY_AFTER)
        }
        // It answers; the next node behind its address may be further.
        Error::Lagging { .. } | Error::SequenceGap { .. } | Error::Inconsistent { .. } => {
            backoff.min(LONGEST_BEHIND_REST)
        }
        _ => backoff,
    };
    rest.failures = rest.failures.saturating_add(1);
    rest.until = Some(Instant::now() + pause);
    rest.last = error.to_string();
    rest.code = error.code();
    rest.verified = false;
    pause
}
