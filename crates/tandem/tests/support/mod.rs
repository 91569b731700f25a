//! What the end-to-end tests stand on: a whole system, its users, their sockets.
//!
//! The tests say what they need in these words; only a [`system::Deployment`] knows in which mode the system runs.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "every test binary uses a part of it")]

pub mod embedded;
pub mod process;
pub mod socket;
pub mod system;
pub mod user;

use std::time::Duration;

pub use self::{
    process::Process,
    socket::{Frame, Socket},
    user::User,
};

/// In one process. The cluster's tests run the same test bodies on another one.
pub type System = system::SystemOn<embedded::Embedded>;

/// Nothing in these tests takes longer than this unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until the condition holds; `what` says what was waited for in vain.
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    until_within(PATIENCE, what, condition).await;
}

/// [`until`] with another bound; answers how long it took.
pub async fn until_within(bound: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let begin = tokio::time::Instant::now();
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let in_time = tokio::time::timeout(bound, waiting).await.is_ok();
    assert!(in_time, "waited {bound:?} in vain until {what}");
    begin.elapsed()
}
