use std::time::{Duration, Instant};

/// Looks again and again until there is what is waited for; the error of a look says what is there instead.
///
/// # Panics
/// When it takes longer than `patience`: with what is waited for and what was seen last.
#[expect(clippy::panic, reason = "test support: the message is the point")]
pub async fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(status) if began.elapsed() > patience => {
                panic!("waited {patience:?} for {what}; last seen: {status}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
