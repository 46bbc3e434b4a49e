//! WASI preview 1 as a guest sees it here: no files, no sockets, no environment, one argument (`module.wasm`), the
//! input as standard input. wasmtime-wasi implements it; the few functions through which time and chance would come
//! in are replaced:
//! - both clocks are one virtual clock: it starts at 0, each reading advances it by one microsecond, and sleeping by
//!   what was slept;
//! - `random_get` is a stream of SHA-256 over the digests of module and input;
//! - `poll_oneoff` really sleeps, and never past the guest's deadline; standard streams are always ready;
//! - `proc_exit` takes every number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor_protocol::GuestStream;
use sha2::{Digest as _, Sha256};
use wasmtime::{Caller, Extern, Linker, Trap};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

use crate::guest::{State, Stop};
use crate::module::PREVIEW1;
use crate::output::Output;

/// The only argument of a command: its own name.
const PROGRAM: &str = "module.wasm";
/// How far each reading advances the clock, in nanoseconds; also its resolution.
const TICK_NS: u64 = 1_000;

const SUCCESS: i32 = 0;
const EBADF: u16 = 8;
const EFAULT: i32 = 21;
const EINVAL: i32 = 28;

/// So many random bytes are made between two looks at the deadline.
const RANDOM_CHUNK_BYTES: usize = 1 << 20;
/// The most subscriptions that one `poll_oneoff` takes.
const MOST_SUBSCRIPTIONS: usize = 4096;
const SUBSCRIPTION_BYTES: usize = 48;
const EVENT_BYTES: usize = 32;

/// The virtual clock, in nanoseconds since its start.
#[derive(Debug, Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn advance(&self, ns: u64) -> u64 {
        let now = self.0.load(Ordering::Relaxed).saturating_add(ns);
        self.0.store(now, Ordering::Relaxed);
        now
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        TICK_NS
    }
    fn now(&self) -> u64 {
        self.advance(TICK_NS)
    }
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(TICK_NS)
    }
    fn now(&self) -> Duration {
        Duration::from_nanos(self.advance(TICK_NS))
    }
}

/// What WASI keeps for one guest.
pub struct Wasi {
    context: WasiP1Ctx,
    clock: Clock,
    chance: Chance,
    deadline: Instant,
}

impl std::fmt::Debug for Wasi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wasi")
    }
}

impl Wasi {
    /// A world that holds nothing but an input. `deadline` is when sleeping ends at the latest.
    #[must_use]
    pub fn new(
        module_sha256: &[u8; 32],
        input: Vec<u8>,
        output: &Output,
        deadline: Instant,
    ) -> Self {
        let clock = Clock::default();
        let chance = Chance::new(module_sha256, &input);
        let context = WasiCtxBuilder::new()
            .arg(PROGRAM)
            .stdin(MemoryInputPipe::new(Bytes::from(input)))
            .stdout(output.stream(GuestStream::Stdout))
            .stderr(output.stream(GuestStream::Stderr))
            .monotonic_clock(clock.clone())
            .wall_clock(clock.clone())
            .build_p1();
        Self { context, clock, chance, deadline }
    }
}

/// A stream of bytes that looks random and is the same in every run.
struct Chance {
    seed: [u8; 32],
    block: u64,
    left: Vec<u8>,
}

impl Chance {
    fn new(module_sha256: &[u8; 32], input: &[u8]) -> Self {
        let seed = Sha256::new()
            .chain_update(module_sha256)
            .chain_update(Sha256::digest(input))
            .finalize()
            .into();
        Self { seed, block: 0, left: Vec::new() }
    }

    fn fill(&mut self, target: &mut [u8]) {
        for byte in target {
            if self.left.is_empty() {
                let block = Sha256::new()
                    .chain_update(self.seed)
                    .chain_update(self.block.to_le_bytes())
                    .finalize();
                self.block += 1;
                self.left.extend(block.iter().rev());
            }
            *byte = self.left.pop().unwrap_or_default();
        }
    }
}

/// Gives a linker everything that a module may import.
pub fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    p1::add_to_linker_sync(linker, |state: &mut State| &mut state.wasi.context)?;
    linker.allow_shadowing(true);
    linker.func_wrap(PREVIEW1, "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(Stop::Exit(code).into())
    })?;
    linker.func_wrap(PREVIEW1, "random_get", random_get)?;
    linker.func_wrap(PREVIEW1, "poll_oneoff", poll_oneoff)?;
    Ok(())
}

fn memory<'a>(caller: &'a mut Caller<'_, State>) -> Option<(&'a mut [u8], &'a mut State)> {
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Some(memory.data_and_store_mut(caller)),
        _ => None,
    }
}

/// `size` bytes of a guest's memory from the address `at`.
fn slice(memory: &mut [u8], at: i32, size: usize) -> Option<&mut [u8]> {
    let at = usize::try_from(at.cast_unsigned()).ok()?;
    memory.get_mut(at..at.checked_add(size)?)
}

/// Costs one unit of fuel for each byte: its work is out of all proportion to one call.
fn random_get(mut caller: Caller<'_, State>, at: i32, size: i32) -> wasmtime::Result<i32> {
    let size = size.cast_unsigned();
    let fuel = caller.get_fuel()?;
    let Some((memory, state)) = memory(&mut caller) else {
        return Ok(EFAULT);
    };
    let Some(target) = usize::try_from(size).ok().and_then(|size| slice(memory, at, size)) else {
        return Ok(EFAULT);
    };
    let left = fuel.checked_sub(size.into()).ok_or(Trap::OutOfFuel)?;
    for part in target.chunks_mut(RANDOM_CHUNK_BYTES) {
        sleep(Duration::ZERO, state.wasi.deadline)?;
        state.wasi.chance.fill(part);
    }
    caller.set_fuel(left)?;
    Ok(SUCCESS)
}

/// What one subscription waits for.
enum Wait {
    /// Nothing: it is ready, or wrong with this error.
    Ready { error: u16 },
    /// The clock, for so many nanoseconds more.
    Sleep { ns: u64 },
}

/// One of a guest's subscriptions.
struct Subscription {
    userdata: [u8; 8],
    kind: u8,
    wait: Wait,
}

impl Subscription {
    /// Reads one; None when its bytes have no meaning. `now` is the virtual clock, in nanoseconds.
    fn read(bytes: &[u8], now: u64) -> Option<Self> {
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let int = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let kind = *bytes.get(8)?;
        let wait = match (kind, int(16)?) {
            // The clocks of processor time do not exist.
            (0, clock) if clock > 1 => Wait::Ready { error: EBADF },
            (0, _) => {
                let absolute = int(40)? & 1 == 1;
                let timeout = long(24)?;
                match if absolute { timeout.saturating_sub(now) } else { timeout } {
                    0 => Wait::Ready { error: 0 },
                    ns => Wait::Sleep { ns },
                }
            }
            (1, 0) | (2, 1 | 2) => Wait::Ready { error: 0 },
            (1 | 2, _) => Wait::Ready { error: EBADF },
            _ => return None,
        };
        Some(Self { userdata: bytes.get(..8)?.try_into().ok()?, kind, wait })
    }

    fn event(&self) -> [u8; EVENT_BYTES] {
        let mut event = [0; EVENT_BYTES];
        let error = match self.wait {
            Wait::Ready { error } => error,
            Wait::Sleep { .. } => 0,
        };
        // A stream that is ready has at least one byte of room or of input, or its end.
        let available = u8::from(self.kind != 0 && error == 0);
        let fields = self
            .userdata
            .into_iter()
            .chain(error.to_le_bytes())
            .chain([self.kind, 0, 0, 0, 0, 0, available]);
        for (to, from) in event.iter_mut().zip(fields) {
            *to = from;
        }
        event
    }
}

fn poll_oneoff(
    mut caller: Caller<'_, State>,
    subscriptions_at: i32,
    events_at: i32,
    count: i32,
    events_count_at: i32,
) -> wasmtime::Result<i32> {
    let Some((memory, state)) = memory(&mut caller) else {
        return Ok(EFAULT);
    };
    let count = usize::try_from(count.cast_unsigned()).unwrap_or(usize::MAX);
    if count > MOST_SUBSCRIPTIONS {
        return Ok(EINVAL);
    }
    let Some(bytes) = slice(memory, subscriptions_at, count.saturating_mul(SUBSCRIPTION_BYTES))
    else {
        return Ok(EFAULT);
    };
    let now = state.wasi.clock.advance(0);
    let subscriptions: Option<Vec<Subscription>> = bytes
        .chunks_exact(SUBSCRIPTION_BYTES)
        .map(|bytes| Subscription::read(bytes, now))
        .collect();
    // With nothing to wait for it would never end; WASI leaves that to the host.
    let Some(subscriptions) = subscriptions.filter(|all| !all.is_empty()) else {
        return Ok(EINVAL);
    };
    let shortest = subscriptions.iter().map(|subscription| match subscription.wait {
        Wait::Ready { .. } => 0,
        Wait::Sleep { ns } => ns,
    });
    let slept = shortest.min().unwrap_or_default();
    sleep(Duration::from_nanos(slept), state.wasi.deadline)?;
    state.wasi.clock.advance(slept);
    let due = subscriptions.iter().filter(|subscription| match subscription.wait {
        Wait::Ready { .. } => true,
        Wait::Sleep { ns } => ns <= slept,
    });
    let events: Vec<u8> = due.flat_map(Subscription::event).collect();
    let number = u32::try_from(events.len() / EVENT_BYTES).unwrap_or(u32::MAX);
    for (at, bytes) in [(events_at, events.as_slice()), (events_count_at, &number.to_le_bytes())] {
        match slice(memory, at, bytes.len()) {
            Some(target) => target.copy_from_slice(bytes),
            None => return Ok(EFAULT),
        }
    }
    Ok(SUCCESS)
}

/// Sleeps for real, but not past the deadline: then the guest has timed out.
fn sleep(duration: Duration, deadline: Instant) -> Result<(), Stop> {
    let left = deadline.saturating_duration_since(Instant::now());
    if !duration.is_zero() {
        std::thread::sleep(duration.min(left));
    }
    if duration > left || left.is_zero() {
        return Err(Stop::TimedOut);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use wasmtime::{Store, ValType};

    use super::*;
    use crate::module::PREVIEW1_FUNCTIONS;

    #[test]
    fn what_the_check_lets_pass_is_exactly_what_there_is() {
        let engine = crate::engine::build(1 << 20).unwrap();
        let mut linker = Linker::new(&engine);
        link(&mut linker).unwrap();
        let output = Output::new(Box::new(std::io::sink()), false, &Default::default());
        let wasi = Wasi::new(&[0; 32], Vec::new(), &output, Instant::now());
        let mut store = Store::new(&engine, State::new(wasi, &Default::default()));
        let letters = |types: &mut dyn Iterator<Item = ValType>| -> String {
            types.map(|ty| if matches!(ty, ValType::I64) { 'I' } else { 'i' }).collect()
        };
        let mut there: Vec<_> = linker
            .iter(&mut store)
            .map(|(module, name, item)| (module.to_owned(), name.to_owned(), item))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(module, name, item)| {
                assert_eq!(module, PREVIEW1);
                let ty = item.into_func().unwrap().ty(&store);
                (name, letters(&mut ty.params()), letters(&mut ty.results()))
            })
            .collect();
        there.sort();
        let listed: Vec<_> = PREVIEW1_FUNCTIONS
            .iter()
            .map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned()))
            .collect();
        assert_eq!(there, listed);
    }

    #[test]
    fn chance_is_the_same_in_any_pieces() {
        let (mut whole, mut parts) = ([0; 100], [0; 100]);
        Chance::new(&[1; 32], b"input").fill(&mut whole);
        let mut chance = Chance::new(&[1; 32], b"input");
        for part in parts.chunks_mut(7) {
            chance.fill(part);
        }
        assert_eq!(whole, parts);
        Chance::new(&[1; 32], b"other").fill(&mut parts);
        assert_ne!(whole, parts);
    }
}
