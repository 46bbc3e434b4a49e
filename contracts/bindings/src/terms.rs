//! The packed small fields of a request.

use alloy::primitives::U256;

use crate::EncodeError;

/// The version of the formats that this crate writes and reads.
pub const FORMAT_VERSION: u8 = 1;

/// Bit of [`Terms::flags`]: the contract enforces the deadline of a task without a fee too.
pub const ENFORCE_DEADLINE: u8 = 1;

const DEADLINE_MAX: u64 = (1 << 40) - 1;

/// The fields of `terms`; the table is in `ITaskBoard.sol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Format version.
    pub version: u8,
    /// Kind's number.
    pub kind: u8,
    /// Index of the domain.
    pub domain: u16,
    /// Number of the module's CID form.
    pub module_form: u8,
    /// Number of the input's CID form.
    pub input_form: u8,
    /// Wall-clock limit in seconds; 0 takes the coordinator's default.
    pub timeout_s: u32,
    /// Memory limit in MiB; 0 takes the coordinator's default.
    pub memory_mib: u32,
    /// Fuel limit; 0 takes the coordinator's default.
    pub fuel: u64,
    /// Unix time in seconds after which the result is worthless; 0 for none. At most 40 bits.
    pub deadline: u64,
    /// Gas of the call to the requester; 0 for none.
    pub callback_gas: u32,
    /// Flag bits, see [`ENFORCE_DEADLINE`].
    pub flags: u8,
}

impl Terms {
    /// Packs the fields.
    ///
    /// # Errors
    /// [`EncodeError::DeadlineTooFar`] when the deadline does not fit into 40 bits.
    pub fn pack(&self) -> Result<U256, EncodeError> {
        if self.deadline > DEADLINE_MAX {
            return Err(EncodeError::DeadlineTooFar(self.deadline));
        }
        let high = u128::from(self.version) << 120
            | u128::from(self.kind) << 112
            | u128::from(self.domain) << 96
            | u128::from(self.module_form) << 88
            | u128::from(self.input_form) << 80
            | u128::from(self.timeout_s) << 48
            | u128::from(self.memory_mib) << 16
            | u128::from(self.fuel >> 48);
        let low = u128::from(self.fuel) << 80
            | u128::from(self.deadline) << 40
            | u128::from(self.callback_gas) << 8
            | u128::from(self.flags);
        Ok(U256::from(high) << 128 | U256::from(low))
    }

    /// Reads the fields; every word is some terms, valid or not.
    pub fn unpack(terms: U256) -> Self {
        let limbs = terms.as_limbs();
        let word = |index: usize| limbs.get(index).copied().unwrap_or_default();
        let high = u128::from(word(3)) << 64 | u128::from(word(2));
        let low = u128::from(word(1)) << 64 | u128::from(word(0));
        Self {
            version: (high >> 120) as u8,
            kind: (high >> 112) as u8,
            domain: (high >> 96) as u16,
            module_form: (high >> 88) as u8,
            input_form: (high >> 80) as u8,
            timeout_s: (high >> 48) as u32,
            memory_mib: (high >> 16) as u32,
            fuel: (high as u64) << 48 | (low >> 80) as u64,
            deadline: (low >> 40) as u64 & DEADLINE_MAX,
            callback_gas: (low >> 8) as u32,
            flags: low as u8,
        }
    }
}
