//! Memory and tables of a guest.

use executor_protocol::Limits;
use wasmtime::ResourceLimiter;

use crate::guest::Stop;

/// Holds memory and tables to the limits, so that growth never depends on the machine: beyond the module's own
/// maximum it answers -1, beyond our limit the guest ends with `memory_limit`.
#[derive(Debug)]
pub struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
    memory_now: usize,
    tables_now: usize,
}

impl Limiter {
    /// Takes the limits that matter here.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let whole = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            memory_bytes: whole(u64::from(limits.memory_mib) << 20),
            table_elements: whole(limits.table_elements.into()),
            memory_now: 0,
            tables_now: 0,
        }
    }

    /// The largest linear memory so far, in bytes. Memory never shrinks.
    #[must_use]
    pub fn peak_memory_bytes(&self) -> u64 {
        self.memory_now as u64
    }
}

/// Lets one memory or table grow from `current` to `desired` where all of its kind together have `now` and may have
/// `most`. Past the module's own `maximum` the guest gets -1, past `most` it ends.
fn grow(
    now: &mut usize,
    most: usize,
    current: usize,
    desired: usize,
    maximum: Option<usize>,
) -> wasmtime::Result<bool> {
    if current > 0 && maximum.is_some_and(|maximum| desired > maximum) {
        return Ok(false);
    }
    let wanted = (*now - current.min(*now)).saturating_add(desired);
    if wanted > most {
        return Err(Stop::MemoryLimit.into());
    }
    *now = wanted;
    Ok(true)
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        grow(&mut self.memory_now, self.memory_bytes, current, desired, maximum)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context(Stop::Host("the machine refused memory within the limit")))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        grow(&mut self.tables_now, self.table_elements, current, desired, maximum)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context(Stop::Host("the machine refused a table within the limit")))
    }
}
