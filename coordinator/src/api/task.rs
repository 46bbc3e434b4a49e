use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Serialize;
use store::{Filter, Versioned};
use task::{LocalId, TaskId};

use super::{
    Api, Error,
    view::{Details, Summary},
};

/// Tasks on one page when nobody asks for another number, and the most.
const PAGE: u32 = 50;
const MOST: u32 = 500;

/// A page of tasks, newest first.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    tasks: Vec<Summary>,
    /// What to give as `before` for the next page; none on the last.
    next: Option<LocalId>,
}

/// `GET /api/v1/tasks`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    query: Result<Query<HashMap<String, String>>, QueryRejection>,
) -> Result<Json<Page>, Error> {
    let Query(query) =
        query.map_err(|_| Error::bad_parameter("the query", "pairs of a name and a value"))?;
    let mut filter = Filter { limit: PAGE, ..Filter::default() };
    for (name, text) in &query {
        match name.as_str() {
            "state" => {
                if !task::State::NAMES.contains(&text.as_str()) {
                    return Err(Error::bad_parameter("state", &task::State::NAMES.join(", ")));
                }
                filter.state = Some(text.clone());
            }
            "id" => {
                let id: TaskId = text
                    .parse()
                    .map_err(|_| Error::bad_parameter("id", "the task's id on its contract"))?;
                filter.task_id = Some(id);
            }
            "before" => {
                let before = text
                    .parse()
                    .map_err(|_| Error::bad_parameter("before", "the `next` of the page before"))?;
                filter.before = Some(LocalId(before));
            }
            "limit" => {
                filter.limit = text
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MOST).contains(limit))
                    .ok_or_else(|| Error::bad_parameter("limit", &format!("1 to {MOST}")))?;
            }
            other => {
                return Err(Error::bad_parameter(
                    &format!("{other:?}"),
                    "state, id, before and limit",
                ));
            }
        }
    }
    let wanted = filter.limit as usize;
    filter.limit += 1;
    let mut rows = api.store.tasks(&filter).await?;
    let more = rows.len() > wanted;
    rows.truncate(wanted);
    let next = if more { rows.last().map(|row| row.task.local_id) } else { None };
    let tasks = rows.iter().map(|row| Summary::of(&row.task)).collect();
    Ok(Json(Page { tasks, next }))
}

/// `GET /api/v1/tasks/{id}`
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<Details>, Error> {
    let row = find(&api, &id).await?.ok_or_else(|| missing(&id))?;
    let local_id = row.task.local_id;
    let result = api.store.result(local_id).await?;
    let timeline = api.store.timeline(local_id).await?;
    Ok(Json(Details::of(&row.task, result.as_ref(), &timeline)))
}

/// The end of what a task's guest wrote.
#[derive(Debug, Serialize)]
pub(super) struct Log {
    id: TaskId,
    local_id: LocalId,
    /// Its lines, each a JSON object of the executor's with the guest's stream and text, escaped.
    lines: Vec<String>,
}

/// `GET /api/v1/tasks/{id}/log`
pub(super) async fn log(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<Log>, Error> {
    let row = find(&api, &id).await?.ok_or_else(|| missing(&id))?;
    let local_id = row.task.local_id;
    let text = api.store.log(local_id).await?.unwrap_or_default();
    let lines = text.lines().map(str::to_owned).collect();
    Ok(Json(Log { id: row.task.identity.task_id, local_id, lines }))
}

fn missing(id: &str) -> Error {
    Error::new(StatusCode::NOT_FOUND, "no_such_task", format!("there is no task {id:?} here"))
}

/// A task by its id on the contract, or by `local:` and its number here.
async fn find(api: &Api, id: &str) -> Result<Option<Versioned>, Error> {
    let wanted = "the task's id on its contract, or local: and its number in this coordinator";
    if let Some(local) = id.strip_prefix("local:") {
        let local = local.parse().map_err(|_| Error::bad_parameter("id", wanted))?;
        return Ok(api.store.task(LocalId(local)).await?);
    }
    let task_id = id.parse().map_err(|_| Error::bad_parameter("id", wanted))?;
    // After a reorganisation several tasks can have had one id: the one that stands on chain comes first.
    let filter = Filter { task_id: Some(task_id), limit: 100, ..Filter::default() };
    let mut rows = api.store.tasks(&filter).await?;
    let standing = rows.iter().position(|row| row.task.included.is_some()).unwrap_or(0);
    Ok((standing < rows.len()).then(|| rows.swap_remove(standing)))
}
