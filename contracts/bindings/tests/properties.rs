//! Every request reads back as it was written, and no bytes make the reader fail in another way than by its error.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use alloy::primitives::{Address, B256, U256};
use alloy::sol_types::SolEvent;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use task_board::{
    DigestBatch, Extra, Submission, TaskBoard, TaskId, Terms, decode_submitted, entry,
};

fn cid() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(|digest| [&[0x12, 0x20][..], &digest].concat()),
        any::<[u8; 32]>().prop_map(|digest| [&[0x01, 0x55, 0x12, 0x20][..], &digest].concat()),
        any::<[u8; 32]>().prop_map(|digest| [&[0x01, 0x70, 0x12, 0x20][..], &digest].concat()),
        vec(any::<u8>(), 1..100),
    ]
}

prop_compose! {
    fn submission()(
        (kind, domain, flags) in (any::<u8>(), any::<u16>(), 0u8..2),
        (module, input) in (of(cid()), of(cid())),
        (module_path, input_path) in (of("[^\0]{1,20}"), of("[^\0]{1,20}")),
        entry in of(prop_oneof!["[a-z_ü]{1,40}", "[a-z]{32}"]),
        (timeout_s, memory_mib, fuel) in (any::<u32>(), any::<u32>(), any::<u64>()),
        (deadline, callback_gas, fee) in (0u64..1 << 40, any::<u32>(), any::<u64>()),
    ) -> Submission {
        Submission {
            kind, domain, flags, entry, timeout_s, memory_mib, fuel, deadline, callback_gas,
            module_path: module_path.filter(|_| module.is_some()),
            input_path: input_path.filter(|_| input.is_some()),
            module, input,
            fee: U256::from(fee) << 32,
        }
    }
}

fn log(submission: &Submission) -> (Vec<B256>, Vec<u8>) {
    let request = submission.encode().unwrap();
    let event = TaskBoard::Submitted {
        id: 7,
        requester: Address::repeat_byte(3),
        terms: request.terms,
        module: request.module,
        input: request.input,
        entry: request.entry,
        fee: U256::from(request.fee),
        extra: request.extra,
    };
    let log = event.encode_log_data();
    (log.topics().to_vec(), log.data.to_vec())
}

proptest! {
    #[test]
    fn a_request_reads_back_as_it_was_written(wanted in submission()) {
        let (topics, data) = log(&wanted);
        let task = decode_submitted(&topics, &data).unwrap();
        prop_assert_eq!(task.id, TaskId::new(7));
        prop_assert_eq!(task.requester, Address::repeat_byte(3));
        let read = Submission {
            kind: task.kind, domain: task.domain, module: task.module, module_path: task.module_path,
            input: task.input, input_path: task.input_path, entry: task.entry, timeout_s: task.timeout_s,
            memory_mib: task.memory_mib, fuel: task.fuel, deadline: task.deadline,
            callback_gas: task.callback_gas, flags: task.flags, fee: task.fee,
        };
        prop_assert_eq!(read, wanted);
    }

    #[test]
    fn a_damaged_log_is_another_task_or_an_error(
        wanted in submission(), at in any::<prop::sample::Index>(), with in 1u8..,
    ) {
        let (topics, mut data) = log(&wanted);
        let before = decode_submitted(&topics, &data).unwrap();
        let at = at.index(data.len());
        data[at] ^= with;
        if let Ok(after) = decode_submitted(&topics, &data) {
            prop_assert_ne!(after.payload_hash, before.payload_hash);
            let (mut before, mut after) = (before, after);
            before.payload_hash = B256::ZERO;
            after.payload_hash = B256::ZERO;
            prop_assert_ne!(after, before, "one task has one encoding");
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        topics in vec(any::<[u8; 32]>(), 0..5), data in vec(any::<u8>(), 0..600), zeros in 0usize..600,
    ) {
        let mut topics: Vec<B256> = topics.into_iter().map(B256::from).collect();
        let _ = decode_submitted(&topics, &data);
        topics = vec![TaskBoard::Submitted::SIGNATURE_HASH, B256::ZERO, B256::ZERO];
        let _ = decode_submitted(&topics, &data);
        let _ = decode_submitted(&topics, &[vec![0; zeros], data.clone()].concat());
        let _ = Extra::decode(&data);
        let _ = DigestBatch::decode(&data);
    }

    #[test]
    fn terms_are_a_bijection(word in any::<[u64; 4]>()) {
        let word = U256::from_limbs(word);
        prop_assert_eq!(Terms::unpack(word).pack(), Ok(word));
    }

    #[test]
    fn an_entry_reads_back(name in "[^\0]{0,12}") {
        match entry::pack(&name) {
            Some(word) => prop_assert_eq!(entry::unpack(word), Ok(Some(name))),
            None => prop_assert!(name.is_empty() || name.len() > 32),
        }
    }
}
