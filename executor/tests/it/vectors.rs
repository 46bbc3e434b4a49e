use std::collections::BTreeMap;

use executor_protocol::Document;
use serde::Deserialize;

use crate::task::Task;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    wat: String,
    env: BTreeMap<String, String>,
    #[serde(default)]
    input: Option<String>,
    document: String,
    sha256: String,
}

#[test]
fn every_golden_document_comes_out() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../vectors/documents.json")).unwrap();
    let mut wrong = Vec::new();
    for vector in &vectors {
        let mut task = Task::text(&vector.wat);
        if let Some(input) = &vector.input {
            task = task.input(input);
        }
        for (name, value) in &vector.env {
            task = task.set(name, value);
        }
        let ran = task.run();
        if ran.document != vector.document {
            wrong.push(format!("{}: {} instead of {}", vector.name, ran.document, vector.document));
        }
        let (document, _) = Document::parse(vector.document.as_bytes()).unwrap();
        assert_eq!(hex::encode(document.digest()), vector.sha256, "{}", vector.name);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
