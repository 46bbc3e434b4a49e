//! What the chain says of a run.

use std::collections::BTreeMap;

use alloy::{
    consensus::Transaction as _,
    eips::BlockNumberOrTag,
    network::TransactionResponse as _,
    primitives::{Address, B256, U256},
    providers::Provider as _,
};
use harness::scene::{Fault, Published, Scene};
use sha2::{Digest as _, Sha256};
use task_board::TaskId;

use crate::{
    Findings,
    mix::{Expected, Planned},
};

/// The longest document that the contract takes itself.
const INLINE_BYTES: usize = task_board::MAX_DOCUMENT_BYTES;

/// Each task has the one result that it must have.
pub(crate) async fn results(
    scene: &Scene,
    tasks: &[(TaskId, &Planned)],
    findings: &mut Findings,
) -> Result<(), Fault> {
    let logs = scene.logs(0).await?;
    for (id, planned) in tasks {
        let found = logs.published.get(id).map_or(&[][..], Vec::as_slice);
        let what = planned.what;
        if found.len() > 1 {
            findings.doubled.push(format!("task {id} ({what}) has {} results", found.len()));
        }
        match (&planned.expected, found.first()) {
            (Expected::Document(_), None) => {
                findings.lost.push(format!("task {id} ({what}) has no result"));
            }
            (Expected::Recorded(_), None) => {
                let wrong = format!("task {id} ({what}) was rejected without a word on chain");
                findings.lost.push(wrong);
            }
            (Expected::Recorded(codes), Some(result)) => {
                let documents =
                    codes.iter().map(|code| format!(r#"{{"status":"rejected","code":"{code}"}}"#));
                if !documents.into_iter().any(|one| agrees(scene, result, &one).is_ok()) {
                    findings.lost.push(format!("task {id} ({what}) has another result"));
                }
            }
            (Expected::Document(document) | Expected::AtMost(document), Some(result)) => {
                if let Err(wrong) = agrees(scene, result, document) {
                    findings.lost.push(format!("task {id} ({what}): {wrong}"));
                }
            }
            (Expected::AtMost(_), None) => {}
        }
    }
    for (id, reason) in &logs.skipped {
        findings.doubled.push(format!("a batch held task {id} in vain (reason {reason})"));
    }
    Ok(())
}

/// Whether a published result is this document, which, when it is long, is where its digest says.
fn agrees(scene: &Scene, result: &Published, document: &str) -> Result<(), String> {
    let status = match document.split('"').nth(3) {
        Some("ok") => 1,
        Some("failed") => 2,
        Some("timed_out") => 3,
        _ => 4,
    };
    if result.status != status {
        return Err(format!("the status is {}, not {status}", result.status));
    }
    let digest: [u8; 32] = Sha256::digest(document).into();
    match (&result.document, &result.digest) {
        (Some(found), _) if found == document.as_bytes() => Ok(()),
        (Some(found), _) => Err(format!("{} is not {document}", String::from_utf8_lossy(found))),
        (None, Some(found)) if found.0 != digest => {
            Err(format!("{found} is not the digest of {document}"))
        }
        (None, _) if document.len() > INLINE_BYTES => {
            let path = scene.mirror().join("blocks").join(ipfs::Cid::raw(digest).to_string());
            match std::fs::read(&path) {
                Ok(stored) if stored == document.as_bytes() => Ok(()),
                Ok(_) => Err(format!("{} holds other bytes", path.display())),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        }
        (None, _) => Ok(()),
    }
}

/// Every fee is open, or was credited once and to whom it belongs; the escrow is what is owed.
pub(crate) async fn money(
    scene: &Scene,
    tasks: &[(TaskId, &Planned)],
    findings: &mut Findings,
) -> Result<(), Fault> {
    let logs = scene.logs(0).await?;
    let (publisher, client) = (scene.publisher(), scene.client());
    let mut credited: BTreeMap<TaskId, Vec<(Address, U256)>> = BTreeMap::new();
    for (id, account, amount) in &logs.credited {
        credited.entry(*id).or_default().push((*account, *amount));
    }
    let mut owed = U256::ZERO;
    for (id, planned) in tasks {
        let fee = planned.submission.fee;
        let open =
            U256::from(scene.board().kept(id.get(), scene.tag(*id).await?.0).call().await?.fee);
        owed += open;
        let status =
            logs.published.get(id).and_then(|found| found.first()).map(|found| found.status);
        let wanted: &[(Address, U256)] = match status {
            _ if fee.is_zero() => &[],
            None => &[],
            Some(4) => &[(client, fee)],
            Some(_) => &[(publisher, fee)],
        };
        let got = credited.remove(id).unwrap_or_default();
        let open_wanted = if status.is_none() { fee } else { U256::ZERO };
        if got != wanted || open != open_wanted {
            findings.lost.push(format!(
                "the fee of task {id}, {fee} wei: credited {got:?}, open {open}; wanted {wanted:?}, {open_wanted}"
            ));
        }
    }
    for account in [publisher, client] {
        owed += scene.board().credit(account).call().await?;
    }
    let held = scene.board().provider().get_balance(*scene.board().address()).await?;
    if held != owed {
        findings.lost.push(format!("the contract holds {held} wei and owes {owed}"));
    }
    Ok(())
}

/// Each transaction of the publisher did something: one that was sent twice under two nonces fails.
pub(crate) async fn transactions(scene: &Scene, findings: &mut Findings) -> Result<(), Fault> {
    let publisher = scene.publisher();
    let provider = scene.board().provider();
    let mut sent = 0_u64;
    for number in 0..=provider.get_block_number().await? {
        let block = provider.get_block_by_number(BlockNumberOrTag::Number(number)).full().await?;
        let Some(block) = block else { return Err(format!("there is no block {number}").into()) };
        for transaction in block.transactions.txns() {
            if transaction.from() != publisher {
                continue;
            }
            sent += 1;
            let hash: B256 = transaction.tx_hash();
            let receipt = provider.get_transaction_receipt(hash).await?;
            if !receipt.is_some_and(|receipt| receipt.status()) {
                let call = transaction.input().get(..4).map(alloy::hex::encode).unwrap_or_default();
                findings
                    .doubled
                    .push(format!("the publisher's transaction {hash} (call {call}) failed"));
            }
        }
    }
    let results: usize = scene.logs(0).await?.published.values().map(Vec::len).sum();
    eprintln!("{results} results in {sent} transactions of the publisher");
    Ok(())
}

/// What was rejected without a word on chain is recorded and served.
pub(crate) async fn recorded(
    scene: &Scene,
    tasks: &[(TaskId, &Planned)],
    findings: &mut Findings,
) -> Result<(), Fault> {
    for (id, planned) in tasks {
        let Expected::Recorded(codes) = &planned.expected else { continue };
        let answer = scene.api(&format!("/api/v1/tasks/{id}")).await?.unwrap_or_default();
        let [state, status, code] = ["/state", "/outcome/status", "/outcome/code"].map(|place| {
            answer.pointer(place).and_then(|value| value.as_str()).unwrap_or_default()
        });
        if state != "final" || status != "rejected" || !codes.contains(&code) {
            let what = planned.what;
            findings
                .lost
                .push(format!("task {id} ({what}) is {state} {status} {code}, not {codes:?}"));
        }
    }
    Ok(())
}
