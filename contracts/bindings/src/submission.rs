//! From what a requester wants to the arguments of `submit`.

use alloy::primitives::aliases::U96;
use alloy::primitives::{B256, U256};

use crate::abi::ITaskBoard::Request;
use crate::{CidForm, EncodeError, Extra, FORMAT_VERSION, Terms, entry};

/// What a requester asks for. The default asks for nothing valid: at least kind and module are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// Kind's number.
    pub kind: u8,
    /// Index of the domain.
    pub domain: u16,
    /// The module's CID in binary.
    pub module: Option<Vec<u8>>,
    /// A path below the module's CID.
    pub module_path: Option<String>,
    /// The input's CID in binary.
    pub input: Option<Vec<u8>>,
    /// A path below the input's CID.
    pub input_path: Option<String>,
    /// The exported function's name; `None` when the input names it.
    pub entry: Option<String>,
    /// Wall-clock limit in seconds; 0 takes the coordinator's default.
    pub timeout_s: u32,
    /// Memory limit in MiB; 0 takes the coordinator's default.
    pub memory_mib: u32,
    /// Fuel limit; 0 takes the coordinator's default.
    pub fuel: u64,
    /// Unix time in seconds after which the result is worthless; 0 for none.
    pub deadline: u64,
    /// Gas of the call to the requester; 0 for none.
    pub callback_gas: u32,
    /// Flag bits, see [`ENFORCE_DEADLINE`](crate::ENFORCE_DEADLINE).
    pub flags: u8,
    /// Fee in wei, to be sent along; at most 96 bits.
    pub fee: U256,
}

impl Submission {
    /// Packs the request: an element of `submitBatch`, or the arguments of `submit` and, as `fee`, its value.
    ///
    /// # Errors
    /// Any [`EncodeError`].
    pub fn encode(&self) -> Result<Request, EncodeError> {
        let mut extra = Extra {
            module_path: self.module_path.clone(),
            input_path: self.input_path.clone(),
            ..Extra::default()
        };
        for (field, cid, path) in
            [("module", &self.module, &self.module_path), ("input", &self.input, &self.input_path)]
        {
            if cid.is_none() && path.is_some() {
                return Err(EncodeError::PathWithoutCid { field });
            }
        }
        let (module_form, module) = pack_cid(self.module.as_deref(), &mut extra.module);
        let (input_form, input) = pack_cid(self.input.as_deref(), &mut extra.input);
        let entry = self.pack_entry(&mut extra)?;
        let terms = Terms {
            version: FORMAT_VERSION,
            kind: self.kind,
            domain: self.domain,
            module_form: module_form.code(),
            input_form: input_form.code(),
            timeout_s: self.timeout_s,
            memory_mib: self.memory_mib,
            fuel: self.fuel,
            deadline: self.deadline,
            callback_gas: self.callback_gas,
            flags: self.flags,
        }
        .pack()?;
        Ok(Request {
            terms,
            module,
            input,
            entry,
            fee: U96::checked_from_limbs_slice(self.fee.as_limbs())
                .ok_or(EncodeError::FeeTooHigh)?,
            extra: extra.encode()?.into(),
        })
    }

    fn pack_entry(&self, extra: &mut Extra) -> Result<B256, EncodeError> {
        let Some(name) = &self.entry else { return Ok(B256::ZERO) };
        if name.is_empty() {
            return Err(EncodeError::Empty { field: "entry" });
        }
        if name.contains('\0') {
            return Err(EncodeError::ZeroByte { field: "entry" });
        }
        Ok(entry::pack(name).unwrap_or_else(|| {
            extra.entry = Some(name.clone());
            B256::ZERO
        }))
    }
}

fn pack_cid(cid: Option<&[u8]>, extra: &mut Option<Vec<u8>>) -> (CidForm, B256) {
    let Some(cid) = cid else { return (CidForm::None, B256::ZERO) };
    let (form, word) = CidForm::pack(cid);
    if form == CidForm::Extra {
        *extra = Some(cid.to_vec());
    }
    (form, word)
}
