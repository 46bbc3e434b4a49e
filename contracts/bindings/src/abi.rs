//! Generated from `contracts/artifact/TaskBoard.json`: [`TaskBoard`] (calls, events, errors, `deploy`) and
//! [`ITaskBoard`] (`Request`, `Result`, `Kept`, `SkipReason`). What each means stands in `ITaskBoard.sol`.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

alloy::sol!(
    #[sol(rpc)]
    #[derive(Debug, PartialEq, Eq)]
    TaskBoard,
    "../artifact/TaskBoard.json"
);
