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

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if current > 0 && maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let wanted = (self.memory_now - current.min(self.memory_now)).saturating_add(desired);
        if wanted > self.memory_bytes {
            return Err(Stop::MemoryLimit.into());
        }
        self.memory_now = wanted;
        Ok(true)
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
        if current > 0 && maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let wanted = (self.tables_now - current.min(self.tables_now)).saturating_add(desired);
        if wanted > self.table_elements {
            return Err(Stop::MemoryLimit.into());
        }
        self.tables_now = wanted;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context(Stop::Host("the machine refused a table within the limit")))
    }
}
