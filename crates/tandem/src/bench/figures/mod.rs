//! A file per figure; the numbers are those of `docs/PERFORMANCE.md`.

pub mod create;
pub mod federation;
pub mod hot;
pub mod latency;
pub mod settle;
pub mod spread;
pub mod subscribers;
