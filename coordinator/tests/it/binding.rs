//! What a client is told when the answer to its task is missing, or stands under its id and is not its own.

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{B256, U256},
    providers::Provider as _,
};
use harness::scene::Scene;
use sha2::{Digest as _, Sha256};
use task_board::{Answer, Tag, TaskId};

use crate::stage::{client, run, said, stage};

const REJECTED: &str = r#"{"status":"rejected","code":"content_unavailable"}"#;

/// The coordinator's account publishes a rejection, carelessly or not.
async fn publish(scene: &Scene, id: TaskId, tag: Tag, again: bool) {
    let head = scene.board().provider().get_block_by_number(BlockNumberOrTag::Latest);
    let head = head.await.unwrap().unwrap().header;
    let answer = Answer { id, tag, engine: 0, status: 4, again };
    let digest = B256::from(<[u8; 32]>::from(Sha256::digest(REJECTED)));
    let call = scene.board().publish(answer.pack(), digest, U256::from(head.number), head.hash);
    let sent = call.from(scene.publisher()).gas(200_000).send().await.unwrap();
    scene.mined(*sent.tx_hash()).await.unwrap();
}

/// What a command that fails says.
async fn refused(scene: &Scene, words: &[&str]) -> String {
    let output = run(&client(scene, &[]), words).await;
    assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn t3_a_client_is_told_which_answer_is_missing_and_never_shown_another_one() {
    let scene = stage().await;
    for words in [["result", "1"], ["verify", "1"], ["cancel", "1"], ["status", "1"]] {
        let said = refused(&scene, &words).await;
        assert!(said.contains("task 1 was not submitted"), "{said}");
    }
    let id = scene.submit_one(&scene.wasm("fib.wasm", None).unwrap()).await.unwrap();
    for command in ["result", "verify"] {
        let said = refused(&scene, &[command, "1"]).await;
        assert!(said.contains("task 1 is submitted and has no result yet"), "{said}");
    }
    let tag = scene.tag(id).await.unwrap();
    publish(&scene, id, Tag(tag.0 ^ 1), false).await;
    for command in ["result", "verify"] {
        let said = refused(&scene, &[command, "1"]).await;
        assert!(said.contains("no result yet"), "{said}");
        assert!(said.contains("does not belong to it"), "{said}");
    }
    publish(&scene, id, tag, true).await;
    // Only its digest is on chain, and no store has it: the documents of rejections are known.
    assert_eq!(said(&client(&scene, &[]), &["result", "1"]).await, REJECTED);
    let output = run(&client(&scene, &[]), &["cancel", "1"]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("answered already: rejected"));
}
