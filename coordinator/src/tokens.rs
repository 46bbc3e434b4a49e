//! Bearer tokens that change while the coordinator runs.

use std::{path::PathBuf, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{api::Tokens, config::file};

/// Time between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads the token file again when it has changed, and when SIGHUP asks for it. A file that cannot be used changes nothing.
pub(crate) async fn keep(
    tokens: Tokens,
    path: Option<PathBuf>,
    soft: CancellationToken,
) -> Result<(), std::io::Error> {
    let mut hangup = signal(SignalKind::hangup())?;
    let changed_at = |path: &PathBuf| std::fs::metadata(path).and_then(|it| it.modified()).ok();
    let mut known = path.as_ref().and_then(changed_at);
    loop {
        let asked = tokio::select! {
            () = soft.cancelled() => return Ok(()),
            _ = hangup.recv() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let Some(path) = &path else {
            if asked {
                tracing::info!("SIGHUP: there is no token file to read again");
            }
            continue;
        };
        let now = changed_at(path);
        if now == known && !asked {
            continue;
        }
        known = now;
        match file::tokens(path) {
            Ok(read) => {
                tokens.replace(&read);
                tracing::info!(tokens = read.len(), "the token file was read again");
            }
            Err(wanted) => {
                let path = path.display();
                tracing::error!(
                    "the token file {path} cannot be used, the tokens stay as they were; wanted is {wanted}"
                );
            }
        }
    }
}
