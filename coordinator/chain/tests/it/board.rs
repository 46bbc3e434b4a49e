use chain::{Board, Deployment, Quote};
use executor_protocol::Status;
use task::TaskId;

use crate::stage::{ENGINE, Stage, key, own, request};

#[tokio::test]
async fn what_is_deployed_and_submitted_is_found_again_from_the_chain_alone() {
    let stage = Stage::start().await;
    let client = stage.client().await;
    let deployment = Deployment {
        owner: Some(own(stage.anvil.address(3))),
        engines: vec!["first".to_owned(), "second".to_owned()],
        coordinators: vec![key(1).address()],
        domain: Some("physics".to_owned()),
    };
    let deployed = Board::deploy(&client, &key(0), &deployment).await.unwrap();
    assert_eq!(deployed.domain, 1);
    let board = Board::new(client.clone(), deployed.contract);
    assert_eq!(board.deployment_block().await.unwrap(), deployed.block.number);
    assert!(board.is_coordinator(1, key(1).address()).await.unwrap());
    assert!(!board.is_coordinator(0, key(1).address()).await.unwrap());
    assert_eq!(board.engine_id("second").await.unwrap(), Some(2));
    assert_eq!(board.engine_name(1).await.unwrap().as_deref(), Some("first"));
    assert_eq!(
        (board.engine_id("third").await.unwrap(), board.engine_name(3).await.unwrap()),
        (None, None)
    );

    let request = task_board::Submission { domain: 1, ..request(5) };
    let accepted = board.submit(&key(2), &[request.clone(), request]).await.unwrap();
    assert_eq!(accepted.ids, [TaskId::new(1, false, 1), TaskId::new(1, false, 2)]);
    let found = board.find_submission(accepted.ids[1], None).await.unwrap().unwrap();
    assert_eq!((found.block, found.identity.task_id), (accepted.receipt.block, accepted.ids[1]));
    assert_eq!(found.submission.request.unwrap().entry.as_deref(), Some("fib"));
    assert_eq!(board.find_result(accepted.ids[0], None).await.unwrap(), None);
    assert_eq!(board.find_submission(TaskId(77), None).await.unwrap(), None);
    assert!(!board.is_closed(accepted.ids[0]).await.unwrap());

    let error = board.submit(&key(2), &[task_board::Submission::default()]).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("refused_by_contract", false));
    let error = board.withdraw(&key(2), key(2).address()).await.unwrap_err();
    assert_eq!(error.code(), "nothing_to_withdraw");
    let nowhere = Board::new(client, own(stage.anvil.address(4)));
    assert_eq!(nowhere.deployment_block().await.unwrap_err().code(), "no_contract");
    assert_eq!(nowhere.is_closed(TaskId(1)).await.unwrap_err().code(), "no_contract");
}

#[tokio::test]
async fn a_result_is_found_with_its_engine_and_its_document_or_digest() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let ids = stage.submit(2).await;
    watcher.poll().await.unwrap();
    let document = r#"{"status":"ok","value":144}"#;
    stage.answer(ids[0], document, true).await;
    stage.answer(ids[1], document, false).await;
    let mut publisher = stage.publisher().await;
    for id in &ids {
        stage.until(&mut publisher, *id, "final").await;
    }
    let board = stage.board().await;
    let inline = board.find_result(ids[0], None).await.unwrap().unwrap();
    assert_eq!(inline.document.as_deref(), Some(document.as_bytes()));
    assert_eq!((inline.status, inline.engine_name.as_deref()), (Status::Ok, Some(ENGINE)));
    assert_eq!(inline.publisher, key(1).address());
    let digest = board.find_result(ids[1], Some(1)).await.unwrap().unwrap();
    assert_eq!((digest.document, digest.digest), (None, inline.digest));
    assert!(board.is_closed(ids[0]).await.unwrap());
}

#[tokio::test]
async fn a_quote_is_an_upper_bound_of_what_publishing_costs() {
    let stage = Stage::start().await;
    let board = stage.board().await;
    let quote = board.quote(TaskId(1), Some(100), 0).await.unwrap();
    assert!(quote.gas > 21_000 && quote.gas_price_wei > 0);
    assert_eq!(quote.cost_wei, quote.gas_price_wei * u128::from(quote.gas));
    let free = Quote::of_free_task(&stage.client().await, None).await.unwrap();
    assert!(free.gas > 21_000);
}

#[tokio::test]
async fn v10_a_receipt_without_the_expected_event_is_no_success() {
    let stage = Stage::start().await;
    let board = stage.board().await;
    let paid = task_board::Submission { fee: alloy::primitives::U256::from(5), ..request(1) };
    let id = board.submit(&key(2), std::slice::from_ref(&paid)).await.unwrap().ids[0];
    let task = stage.identity(id).await;
    // From now on the address takes everything, money too, and does nothing.
    let address = stage.contract.to_string();
    stage.anvil.rpc("anvil_setCode", serde_json::json!([address, "0x00"])).await;
    for (what, done) in [
        ("submit", board.submit(&key(2), &[paid]).await.map(|_| ())),
        ("cancel", board.cancel(&key(2), &task).await.map(|_| ())),
        ("expire", board.expire(&key(2), &task).await.map(|_| ())),
        ("withdraw", board.withdraw(&key(2), key(2).address()).await.map(|_| ())),
    ] {
        assert_eq!(done.unwrap_err().code(), "missing_event", "{what}");
    }
}
