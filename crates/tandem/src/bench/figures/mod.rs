//! A file per figure; the numbers are those of `docs/PERFORMANCE.md`.

pub mod create;
pub mod embedded;
pub mod federation;
pub mod growth;
pub mod hot;
pub mod idle;
pub mod latency;
pub mod memory;
pub mod settle;
pub mod spread;
pub mod subscribers;
