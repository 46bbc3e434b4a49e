//! A scene with the samples, and the looks that the tests have in common.

use std::{collections::BTreeMap, path::Path, process::Output, time::Duration};

use harness::{
    Daemon, command,
    scene::{Published, Scene},
    wait_for,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use task_board::TaskId;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The samples of the repository.
pub(crate) fn samples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/wasm"))
}

/// A chain with the contract, and a mirror with the samples.
pub(crate) async fn stage() -> Scene {
    Scene::start(samples()).await.unwrap()
}

/// The environment of the client with some variables changed.
pub(crate) fn client(scene: &Scene, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut variables = scene.client_environment();
    variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    variables
}

/// Runs a command of the coordinator to its end.
pub(crate) async fn run(variables: &BTreeMap<String, String>, words: &[&str]) -> Output {
    command(variables).unwrap().args(words).output().await.unwrap()
}

/// Runs a command that must do what it is asked to, and answers its stdout.
pub(crate) async fn said(variables: &BTreeMap<String, String>, words: &[&str]) -> String {
    let output = run(variables, words).await;
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{words:?}: {}\n{out}\n{err}", output.status);
    out.trim().to_owned()
}

/// A task as the API shows it.
pub(crate) async fn task(scene: &Scene, id: TaskId) -> Result<Value, String> {
    match scene.api(&format!("/api/v1/tasks/{id}")).await {
        Ok(Some(task)) => Ok(task),
        Ok(None) => Err("not served".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Waits until the task is in this state.
pub(crate) async fn reaches(scene: &Scene, id: TaskId, state: &str) -> Value {
    wait_for(&format!("task {id} to be {state}"), PATIENCE, async || {
        let task = task(scene, id).await?;
        if task["state"] == state { Ok(task) } else { Err(task["state"].to_string()) }
    })
    .await
}

/// Waits until the coordinator listens.
pub(crate) async fn listens(scene: &Scene, daemon: &mut Daemon) {
    wait_for("the coordinator to listen", PATIENCE, async || {
        if let Some(status) = daemon.ended().unwrap() {
            return Err(format!("it ended: {status}\n{}", daemon.tail()));
        }
        scene.get("/healthz").await.map(|_| ()).ok_or_else(|| daemon.tail())
    })
    .await;
}

/// Waits for the one result of a task on chain.
pub(crate) async fn result(scene: &Scene, id: TaskId) -> Published {
    wait_for(&format!("the result of task {id}"), PATIENCE, async || match scene.result(id).await {
        Ok(Some(result)) => Ok(result),
        Ok(None) => Err(format!("{:?}", task(scene, id).await)),
        Err(error) => Err(error.to_string()),
    })
    .await
}

/// Waits for the one result of a task on chain, which is this document, itself or by its digest.
pub(crate) async fn answers(scene: &Scene, id: TaskId, document: &str) -> Published {
    let result = result(scene, id).await;
    match &result.document {
        Some(found) => assert_eq!(String::from_utf8_lossy(found), document),
        None => assert_eq!(result.digest.unwrap().0, <[u8; 32]>::from(Sha256::digest(document))),
    }
    result
}

/// Stops the coordinator, which must be quick, and leaves nothing.
pub(crate) async fn stop(daemon: Daemon) {
    daemon.stop(Duration::from_secs(5)).await.unwrap();
}
