//! Where verified blocks come from: what an earlier attempt kept, the mirror, then the gateways. A single block is
//! tried again, after the pause that a gateway asked for, and asked of the next gateway when one is slow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::budget::Timeouts;
use crate::cid::Cid;
use crate::error::{Error, blocking};
use crate::gateway::{Gateway, Rest};
use crate::mirror::Mirror;
use crate::shelf::Tray;

/// The longest that a block waits for a gateway before the next one is asked as well.
const HEDGE: Duration = Duration::from_secs(3);
/// How often a block is asked of a gateway that gave blocks lately.
const PROVEN_ATTEMPTS: u32 = 10;
/// How often it is asked of any other.
const ATTEMPTS: u32 = 3;
/// Pause after a failure that names none, doubled with each one up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The places that are asked for a block, in their order.
pub(crate) struct Blocks {
    pub(crate) mirror: Option<Mirror>,
    pub(crate) gateways: Vec<Arc<Gateway>>,
    pub(crate) timeouts: Timeouts,
    /// Whether a gateway may be looked at to see if it works.
    pub(crate) may_probe: bool,
}

/// What became of one gateway in the search for one block.
struct Try {
    gateway: Arc<Gateway>,
    attempts: u32,
    /// When it was asked last.
    asked_at: Option<Instant>,
    state: TryState,
}

enum TryState {
    /// It can be asked from then on; the error is the last one.
    Ready(Instant, Option<Error>),
    Asked,
    /// It will not be asked again for this block.
    Out(Error),
}

impl Blocks {
    /// A block's bytes, checked against its CID. A place that fails is passed over; when all fail, what the answer
    /// was: wrong bytes (naming every place that served them) before any other fault, that before absence. With a
    /// tray, what an earlier attempt kept is taken first, and what is fetched is kept if `keeps` says so.
    pub(crate) async fn get(
        &self,
        cid: &Cid,
        max_bytes: u64,
        tray: Option<&Tray>,
        keeps: bool,
    ) -> Result<Bytes, Error> {
        if let Some(content) = cid.inline() {
            return Ok(Bytes::copy_from_slice(content));
        }
        let mut failures = Vec::new();
        if let Some(mirror) = &self.mirror {
            match mirror.block(cid, max_bytes).await {
                Ok(block) => return Ok(block),
                // With gateways the mirror holds only what was added here: to lack a block says nothing.
                Err(Error::NotFound { .. }) if !self.gateways.is_empty() => {}
                // A folder that can be read is a source that works.
                Err(
                    error @ (Error::NotFound { .. }
                    | Error::DigestMismatch { .. }
                    | Error::BlockTooLarge { .. }),
                ) if self.gateways.is_empty() && mirror.is_there() => {
                    return Err(Error::NotServed(Box::new(error)));
                }
                Err(error) => failures.push(error),
            }
        }
        if self.gateways.is_empty() {
            return Err(outcome(cid, failures));
        }
        if let Some(tray) = tray
            && let Some(block) = kept(tray, cid, max_bytes).await?
        {
            return Ok(block);
        }
        let block = self.fetch(cid, max_bytes, failures).await?;
        if keeps && let Some(tray) = tray {
            keep(tray, cid, &block).await?;
        }
        Ok(block)
    }

    /// Asks the gateways, those that were slow lately last.
    async fn fetch(
        &self,
        cid: &Cid,
        max_bytes: u64,
        mut failures: Vec<Error>,
    ) -> Result<Bytes, Error> {
        let now = Instant::now();
        let mut order: Vec<_> = self.gateways.iter().map(Arc::clone).collect();
        order.sort_by_key(|gateway| gateway.is_slow());
        let mut tries: Vec<_> = order
            .into_iter()
            .map(|gateway| Try {
                gateway,
                attempts: 0,
                asked_at: None,
                state: TryState::Ready(now, None),
            })
            .collect();
        let give_up_at = now + self.patience() * 2;
        let mut asked = JoinSet::new();
        let mut hedge_at = now;
        loop {
            let now = Instant::now();
            let next = next_of(&tries, now);
            match next {
                Some((index, ready_at))
                    if ready_at <= now && (asked.is_empty() || hedge_at <= now) =>
                {
                    if let Some(one) = tries.get_mut(index) {
                        let gateway = Arc::clone(&one.gateway);
                        let cid = cid.clone();
                        asked.spawn(async move { (index, gateway.block(&cid, max_bytes).await) });
                        one.attempts += 1;
                        one.asked_at = Some(now);
                        one.state = TryState::Asked;
                        hedge_at = now + self.hedge();
                    }
                    continue;
                }
                // Nobody is asked, and whoever could be asks for more time than there is.
                Some((_, ready_at)) if asked.is_empty() && ready_at > give_up_at => break,
                None if asked.is_empty() => break,
                _ => {}
            }
            let wake_at = match next {
                Some((_, ready_at)) if asked.is_empty() => ready_at,
                Some((_, ready_at)) => ready_at.max(hedge_at),
                None => give_up_at.max(now) + self.timeouts.total,
            };
            tokio::select! {
                Some(joined) = asked.join_next() => {
                    let Ok((index, result)) = joined else { continue };
                    match result {
                        Ok(block) => {
                            self.demote_slower(&tries, index);
                            return Ok(block);
                        }
                        Err(error) => self.note(&mut tries, index, cid, error),
                    }
                }
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
        self.give_up(cid, tries, &mut failures).await
    }

    /// Decides whether a gateway that failed is asked again for this block, and when.
    fn note(&self, tries: &mut [Try], index: usize, cid: &Cid, error: Error) {
        let Some(one) = tries.get_mut(index) else { return };
        let place = one.gateway.name();
        tracing::debug!(ipfs.cid = %cid, ipfs.gateway = place, ipfs.code = error.code(), %error, "a gateway failed to give a block");
        let proven = one.gateway.is_proven();
        let most = if proven { PROVEN_ATTEMPTS } else { ATTEMPTS };
        let doubled = FIRST_PAUSE * 2_u32.saturating_pow(one.attempts.saturating_sub(1).min(10));
        let pause = match &error {
            // It was not there for a moment, or is asked too often.
            Error::Unavailable { retry_after: Some(pause), .. } => {
                // One that asks for the same pause again and gave nothing between is left.
                if !proven && one.attempts > 1 { None } else { Some(*pause) }
            }
            Error::Unavailable { status, .. } => {
                let pause = doubled.min(LONGEST_PAUSE);
                if *status == 429 {
                    let until = Instant::now() + pause;
                    one.gateway.let_rest(Rest { until, status: *status });
                }
                Some(pause)
            }
            Error::Truncated { .. } | Error::Unreachable { .. } => Some(doubled.min(LONGEST_PAUSE)),
            _ => None,
        };
        one.state = match pause {
            Some(pause) if one.attempts < most && pause <= self.patience() => {
                TryState::Ready(Instant::now() + pause, Some(error))
            }
            _ => TryState::Out(error),
        };
    }

    /// Those that were asked before the one that answered, and long ago, come last from now on.
    fn demote_slower(&self, tries: &[Try], winner: usize) {
        let won_at = tries.get(winner).and_then(|one| one.asked_at);
        for one in tries {
            let waits = matches!(one.state, TryState::Asked) && one.asked_at < won_at;
            if waits && !one.gateway.is_slow() {
                let place = one.gateway.name();
                tracing::info!(ipfs.gateway = place, "a gateway is slow and is asked last for now");
                one.gateway.put_last();
            }
        }
    }

    /// Why there is no block. A gateway that works and does not give it says something about the content.
    async fn give_up(
        &self,
        cid: &Cid,
        tries: Vec<Try>,
        failures: &mut Vec<Error>,
    ) -> Result<Bytes, Error> {
        let mut is_known = false;
        for one in tries {
            let error = match one.state {
                TryState::Out(error) | TryState::Ready(_, Some(error)) => error,
                TryState::Ready(_, None) => match one.gateway.rest() {
                    Some(rest) => Error::Unavailable {
                        place: one.gateway.name(),
                        status: rest.status,
                        retry_after: Some(rest.until.saturating_duration_since(Instant::now())),
                    },
                    None => continue,
                },
                TryState::Asked => continue,
            };
            let works = is_of_content(&error) && one.gateway.works(self.may_probe).await;
            let error = match error {
                // It is no gateway: what to write instead belongs to what is said.
                Error::NotFound { cid, place, note } if !works && note.is_empty() => {
                    let note = one.gateway.known_hint().map_or(note, |hint| format!("; {hint}"));
                    Error::NotFound { cid, place, note }
                }
                error => error,
            };
            tracing::warn!(ipfs.cid = %cid, ipfs.code = error.code(), %error, "a gateway failed to give a block");
            is_known = is_known || works;
            failures.push(error);
        }
        let error = outcome(cid, std::mem::take(failures));
        Err(if is_known { Error::NotServed(Box::new(error)) } else { error })
    }

    /// How long a gateway's wish for a pause is heeded in one fetch.
    fn patience(&self) -> Duration {
        self.timeouts.idle.min(self.timeouts.total / 4)
    }

    fn hedge(&self) -> Duration {
        HEDGE.min(self.timeouts.idle / 4).min(self.timeouts.total / 10)
    }

    /// Whether any gateway is known to work.
    pub(crate) fn has_working_gateway(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway.seems_to_work())
    }

    /// Whether blocks come over a network, where asking ahead pays.
    pub(crate) fn are_remote(&self) -> bool {
        !self.gateways.is_empty()
    }
}

/// The gateway to be asked next, and from when on: the first that can be asked now, else the one that can be first.
fn next_of(tries: &[Try], now: Instant) -> Option<(usize, Instant)> {
    let ready = tries.iter().enumerate().filter_map(|(index, one)| match one.state {
        TryState::Ready(at, _) => {
            let rested_at = one.gateway.rest().map_or(at, |rest| rest.until.max(at));
            Some((index, rested_at.max(now)))
        }
        TryState::Asked | TryState::Out(_) => None,
    });
    ready.min_by_key(|(index, at)| (*at, *index))
}

/// Whether a gateway that works and answers so says something about the content, and not about itself.
fn is_of_content(error: &Error) -> bool {
    match error {
        Error::Unavailable { status, .. } => !matches!(status, 429 | 503),
        Error::NotFound { .. }
        | Error::GatewayRefused { .. }
        | Error::DigestMismatch { .. }
        | Error::BlockTooLarge { .. }
        | Error::EncodingRefused { .. }
        | Error::IdleTimeout { .. }
        | Error::TooSlow { .. }
        | Error::Truncated { .. } => true,
        _ => false,
    }
}

async fn kept(tray: &Tray, cid: &Cid, max_bytes: u64) -> Result<Option<Bytes>, Error> {
    let (tray, cid) = (tray.clone(), cid.clone());
    blocking("reading", std::path::Path::new(""), move || Ok(tray.get(&cid, max_bytes))).await
}

/// Keeps a block for the next attempt.
pub(crate) async fn keep(tray: &Tray, cid: &Cid, block: &Bytes) -> Result<(), Error> {
    let (tray, cid, block) = (tray.clone(), cid.clone(), block.clone());
    blocking("writing", std::path::Path::new(""), move || {
        tray.put(&cid, &block);
        Ok(())
    })
    .await
}

fn outcome(cid: &Cid, failures: Vec<Error>) -> Error {
    let liars: Vec<&str> = failures
        .iter()
        .filter_map(|failure| match failure {
            Error::DigestMismatch { place, .. } => Some(place.as_str()),
            _ => None,
        })
        .collect();
    if !liars.is_empty() {
        return Error::DigestMismatch { cid: cid.clone(), place: liars.join(", ") };
    }
    let is_absence = |failure: &Error| matches!(failure, Error::NotFound { .. });
    let (absent, other): (Vec<_>, Vec<_>) = failures.into_iter().partition(is_absence);
    other.into_iter().chain(absent).next().unwrap_or(Error::NoSource {
        missing: "there is neither a gateway nor a mirror to fetch from",
    })
}
