//! The bindings keep to the golden vectors that the contract's own tests read too.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use alloy::primitives::{Address, B256, Bytes, U256, hex};
use serde_json::Value;
use sha2::{Digest, Sha256};
use task_board::{
    Answer, CidForm, DecodeError, DigestBatch, Extra, Header, LoggedAnswer, Submission, Tag,
    TaskId, Terms, decode_submitted, payload_hash,
};

fn open(name: &str) -> Value {
    let path = format!("{}/../vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(file["count"], rows(&file["vectors"]).len());
    file
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    let number = value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap());
    T::try_from(number).unwrap()
}

fn binary(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn maybe_binary(value: &Value) -> Option<Vec<u8>> {
    value.as_str().map(|text| hex::decode(text).unwrap())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn word(value: &Value) -> B256 {
    value.as_str().unwrap().parse().unwrap()
}

fn wei(value: &Value) -> U256 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn ids_pack_and_unpack() {
    for row in rows(&open("ids")["vectors"]) {
        let (domain, kept, sequence) =
            (number(&row["domain"]), row["kept"].as_bool().unwrap(), number(&row["sequence"]));
        let id = TaskId::pack(domain, kept, sequence).unwrap();
        assert_eq!(id.get(), number::<u64>(&row["id"]));
        assert_eq!((id.domain(), id.is_kept(), id.sequence()), (domain, kept, sequence));
        assert_eq!(row["id"].as_str().unwrap().parse(), Ok(id));
        assert_eq!(id.to_string(), row["id"].as_str().unwrap());
    }
    assert_eq!(TaskId::pack(0, false, 1 << 47), None);
}

#[test]
fn terms_pack_and_unpack() {
    for row in rows(&open("terms")["vectors"]) {
        let terms = Terms {
            version: number(&row["version"]),
            kind: number(&row["kind"]),
            domain: number(&row["domain"]),
            module_form: number(&row["module_form"]),
            input_form: number(&row["input_form"]),
            timeout_s: number(&row["timeout_s"]),
            memory_mib: number(&row["memory_mib"]),
            fuel: number(&row["fuel"]),
            deadline: number(&row["deadline"]),
            callback_gas: number(&row["callback_gas"]),
            flags: number(&row["flags"]),
        };
        let packed = U256::from_be_bytes(word(&row["terms"]).0);
        assert_eq!(terms.pack(), Ok(packed));
        assert_eq!(Terms::unpack(packed), terms);
    }
}

#[test]
fn answers_pack_and_unpack() {
    let file = open("answers");
    for row in rows(&file["vectors"]) {
        let answer = Answer {
            id: TaskId::new(number(&row["id"])),
            tag: Tag(number(&row["tag"])),
            engine: number(&row["engine"]),
            status: number(&row["status"]),
            again: row["again"].as_bool().unwrap(),
        };
        let packed = U256::from_be_bytes(word(&row["answer"]).0);
        assert_eq!(answer.pack(), packed);
        assert_eq!(Answer::unpack(packed), Some(answer));
        if !answer.again {
            let Answer { id, tag, engine, status, .. } = answer;
            let logged = LoggedAnswer { anchor_number: id.get(), tag, engine, status };
            assert_eq!(LoggedAnswer::unpack(packed), Some(logged));
            assert_eq!(logged.pack(), packed);
        }
    }
    for refused in rows(&file["refused"]) {
        let packed = U256::from_be_bytes(word(refused).0);
        assert_eq!((Answer::unpack(packed), LoggedAnswer::unpack(packed)), (None, None));
    }
}

#[test]
fn cids_pack_and_unpack() {
    for row in rows(&open("cids")["vectors"]) {
        let cid = binary(&row["cid"]);
        let (form, digest) = CidForm::pack(&cid);
        assert_eq!((form.code(), digest), (number(&row["form"]), word(&row["word"])));
        assert_eq!(CidForm::from_code(form.code()), Some(form));
        assert_eq!(form.unpack(digest), (form != CidForm::Extra).then_some(cid));
    }
}

#[test]
fn extra_is_read_strictly() {
    let file = open("extra");
    for row in rows(&file["vectors"]) {
        let records = &row["records"];
        let extra = Extra {
            module: maybe_binary(&records["module"]),
            input: maybe_binary(&records["input"]),
            module_path: text(&records["module_path"]),
            input_path: text(&records["input_path"]),
            entry: text(&records["entry"]),
        };
        assert_eq!(extra.encode(), Ok(binary(&row["extra"])));
        assert_eq!(Extra::decode(&binary(&row["extra"])), Ok(extra));
    }
    for row in rows(&file["refused"]) {
        let error = Extra::decode(&binary(&row["extra"])).unwrap_err();
        assert_eq!(error.code(), row["code"], "{row}");
    }
}

#[test]
fn submitted_logs_are_read_and_requests_give_them() {
    for row in rows(&open("submitted")["vectors"]) {
        let topics: Vec<B256> = rows(&row["topics"]).iter().map(word).collect();
        let data = binary(&row["data"]);
        let task = decode_submitted(&topics, &data).unwrap();
        let says = &row["submitted"];
        let submission = Submission {
            kind: number(&says["kind"]),
            domain: number(&says["domain"]),
            module: maybe_binary(&says["module"]),
            module_path: text(&says["module_path"]),
            input: maybe_binary(&says["input"]),
            input_path: text(&says["input_path"]),
            entry: text(&says["entry"]),
            timeout_s: number(&says["timeout_s"]),
            memory_mib: number(&says["memory_mib"]),
            fuel: number(&says["fuel"]),
            deadline: number(&says["deadline"]),
            callback_gas: number(&says["callback_gas"]),
            flags: number(&says["flags"]),
            fee: wei(&says["fee"]),
        };
        let read = Submission {
            kind: task.kind,
            domain: task.domain,
            module: task.module,
            module_path: task.module_path,
            input: task.input,
            input_path: task.input_path,
            entry: task.entry,
            timeout_s: task.timeout_s,
            memory_mib: task.memory_mib,
            fuel: task.fuel,
            deadline: task.deadline,
            callback_gas: task.callback_gas,
            flags: task.flags,
            fee: task.fee,
        };
        assert_eq!(read, submission);
        assert_eq!(task.version, number::<u8>(&says["version"]));
        let requester: Address = row["requester"].as_str().unwrap().parse().unwrap();
        let header = Header { id: task.id, requester, payload_hash: task.payload_hash };
        assert_eq!(task.id.get(), number::<u64>(&row["id"]));
        assert_eq!(task.requester, requester);
        assert_eq!(task.payload_hash, word(&row["payload_hash"]));
        assert_eq!(payload_hash(&topics, &data), task.payload_hash);
        assert_eq!(Header::of(&topics, &data), Ok(header));
        assert_eq!(header.tag(), Tag(number(&row["tag"])));

        let request = submission.encode().unwrap();
        let arguments = &row["arguments"];
        assert_eq!(request.terms, U256::from_be_bytes(word(&arguments["terms"]).0));
        assert_eq!(request.module, word(&arguments["module"]));
        assert_eq!(request.input, word(&arguments["input"]));
        assert_eq!(request.entry, word(&arguments["entry"]));
        assert_eq!(U256::from(request.fee), wei(&arguments["fee"]));
        assert_eq!(request.extra, Bytes::from(binary(&arguments["extra"])));
    }
}

#[test]
fn hostile_payloads_are_refused_with_a_code_and_still_have_a_header() {
    let file = open("submitted");
    let topics: Vec<B256> = rows(&file["vectors"][0]["topics"]).iter().map(word).collect();
    for row in rows(&file["refused"]) {
        let data = binary(&row["data"]);
        let error = decode_submitted(&topics, &data).unwrap_err();
        assert_eq!(error.code(), row["code"], "{row}");
        let header = Header::of(&topics, &data).unwrap();
        assert_eq!((header.id.get(), header.payload_hash), (1, payload_hash(&topics, &data)));
    }
    let huge = vec![0x41; 2 << 20];
    assert_eq!(decode_submitted(&topics, &huge), Err(DecodeError::PayloadOffset));
    let good = binary(&file["vectors"][0]["data"]);
    assert_eq!(decode_submitted(&topics[..2], &good), Err(DecodeError::NotSubmitted));
    let foreign = [topics[1], topics[1], topics[2]];
    assert_eq!(decode_submitted(&foreign, &good), Err(DecodeError::NotSubmitted));
    let long_id = [topics[0], B256::repeat_byte(1), topics[2]];
    assert_eq!(decode_submitted(&long_id, &good), Err(DecodeError::NotSubmitted));
    let long_requester = [topics[0], topics[1], B256::repeat_byte(1)];
    assert_eq!(decode_submitted(&long_requester, &good), Err(DecodeError::NotSubmitted));
}

#[test]
fn packed_batches_are_written_and_read() {
    let file = open("digests");
    for row in rows(&file["vectors"]) {
        let records = rows(&row["records"]).iter().map(|record| task_board::DigestRecord {
            id: TaskId::new(number(&record["id"])),
            tag: Tag(number(&record["tag"])),
            again: false,
            status: number(&record["status"]),
            digest: word(&record["digest"]),
        });
        let batch = DigestBatch { engine: number(&row["engine"]), records: records.collect() };
        assert_eq!(batch.encode(), binary(&row["packed"]));
        assert_eq!(DigestBatch::decode(&binary(&row["packed"])), Ok(batch));
    }
    for packed in rows(&file["refused"]) {
        let packed = binary(packed);
        assert_eq!(DigestBatch::decode(&packed).unwrap_err().bytes, packed.len());
    }
}

#[test]
fn a_result_document_is_the_block_whose_digest_is_published() {
    for row in rows(&open("results")["vectors"]) {
        let digest = B256::from_slice(&Sha256::digest(row["document"].as_str().unwrap()));
        assert_eq!(digest, word(&row["digest"]));
        assert_eq!(CidForm::V1Raw.unpack(digest), Some(binary(&row["cid"])));
    }
}
