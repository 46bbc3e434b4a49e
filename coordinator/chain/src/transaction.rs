//! Fees and the shape of transactions.

use alloy::{
    consensus::TxEip1559,
    primitives::{Address, Bytes, TxKind, U256},
};

/// The prices of a unit of gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fees {
    pub(crate) max_wei: u128,
    pub(crate) tip_wei: u128,
}

impl Fees {
    /// These, but not below `floor`.
    pub(crate) fn at_least(self, floor: Self) -> Self {
        let max_wei = self.max_wei.max(floor.max_wei);
        Self { max_wei, tip_wei: self.tip_wei.max(floor.tip_wei).min(max_wei) }
    }
}

/// Where fees come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeeRule {
    pub(crate) tip_wei: u128,
    pub(crate) cap_wei: Option<u128>,
}

impl FeeRule {
    /// Twice the base fee and the tip: enough for six full blocks in a row. Never above the cap.
    pub(crate) fn fees(&self, base_fee_wei: u128) -> Fees {
        let wanted = base_fee_wei.saturating_mul(2).saturating_add(self.tip_wei);
        let max_wei = self.cap_wei.map_or(wanted, |cap| wanted.min(cap));
        Fees { max_wei, tip_wei: self.tip_wei.min(max_wei) }
    }

    /// Fees that replace a transaction with `before`: both higher by an eighth at least, as nodes demand. None when
    /// that would be above the cap, which without a setting is ten times what the moment asks for: a transaction that
    /// is stuck for another reason must not raise its price for ever.
    pub(crate) fn raised(&self, before: Fees, base_fee_wei: u128) -> Option<Fees> {
        let raise = |wei: u128| wei.saturating_add(wei.div_ceil(8)).max(wei.saturating_add(1));
        let fresh = self.fees(base_fee_wei);
        let max_wei = raise(before.max_wei);
        let cap = self.cap_wei.unwrap_or(fresh.max_wei.max(1).saturating_mul(10));
        if max_wei > cap {
            return None;
        }
        let max_wei = max_wei.max(fresh.max_wei);
        Some(Fees { max_wei, tip_wei: raise(before.tip_wei).max(fresh.tip_wei).min(max_wei) })
    }
}

/// A transaction of type 2. Without a recipient it creates a contract.
pub(crate) fn eip1559(
    chain_id: u64,
    nonce: u64,
    to: Option<Address>,
    value: U256,
    input: Vec<u8>,
    gas_limit: u64,
    fees: Fees,
) -> TxEip1559 {
    TxEip1559 {
        chain_id,
        nonce,
        gas_limit,
        max_fee_per_gas: fees.max_wei,
        max_priority_fee_per_gas: fees.tip_wei,
        to: to.map_or(TxKind::Create, TxKind::Call),
        value,
        access_list: Default::default(),
        input: Bytes::from(input),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_replacement_raises_both_prices_by_an_eighth_and_stays_below_the_cap() {
        let rule = FeeRule { tip_wei: 9, cap_wei: Some(1_000) };
        let first = rule.fees(100);
        assert_eq!(first, Fees { max_wei: 209, tip_wei: 9 });
        let second = rule.raised(first, 100).unwrap();
        assert_eq!(second, Fees { max_wei: 236, tip_wei: 11 });
        assert_eq!(rule.raised(second, 400).unwrap().max_wei, 809);
        assert_eq!(rule.raised(Fees { max_wei: 900, tip_wei: 20 }, 400), None);
        assert_eq!(rule.fees(4_000), Fees { max_wei: 1_000, tip_wei: 9 });
    }

    #[test]
    fn a_tip_of_zero_can_be_raised() {
        let rule = FeeRule { tip_wei: 0, cap_wei: None };
        let first = rule.fees(0);
        assert_eq!(rule.raised(first, 0).unwrap(), Fees { max_wei: 1, tip_wei: 1 });
    }

    #[test]
    fn without_a_cap_ten_times_the_price_is_the_end() {
        let rule = FeeRule { tip_wei: 10, cap_wei: None };
        let mut fees = rule.fees(45);
        while let Some(raised) = rule.raised(fees, 45) {
            fees = raised;
        }
        assert!((900..=1_000).contains(&fees.max_wei), "{fees:?}");
    }
}
