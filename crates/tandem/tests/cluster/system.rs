//! What the system promises in one process, it promises here. `origins` is left out: only the one process guards its host name.

#[path = "../system/bad_input.rs"]
mod bad_input;
#[path = "../system/batching.rs"]
mod batching;
#[path = "../system/delivery.rs"]
mod delivery;
#[path = "../system/federation.rs"]
mod federation;
#[path = "../system/lists.rs"]
mod lists;
#[path = "../system/live.rs"]
mod live;
#[path = "../system/money.rs"]
mod money;
#[path = "../system/restart.rs"]
mod restart;
#[path = "../system/tokens.rs"]
mod tokens;
