//! A gate in front of a loop: closed, the loop stops between two batches.

use tokio::sync::watch;

/// Lets an operator or a test hold a loop between two batches. Cheap to clone; all clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    open: bool,
    /// How many passes are held: batches being worked on right now.
    inside: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(State { open: true, inside: 0 }))
    }

    /// A closed gate.
    #[must_use]
    pub fn new_closed() -> Self {
        let gate = Self::new();
        gate.close();
        gate
    }

    /// Lets the loop go on.
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Holds the loop before its next batch; the batch being worked on is finished. See [`Gate::quiet`].
    pub fn close(&self) {
        self.0.send_modify(|state| state.open = false);
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.borrow().open
    }

    /// Waits until it is open.
    pub async fn wait_open(&self) {
        self.wait_for(|state| state.open).await;
    }

    /// Waits until no batch is being worked on: after [`Gate::close`], until the loop stands still.
    pub async fn quiet(&self) {
        self.wait_for(|state| state.inside == 0).await;
    }

    /// Goes through if it is open. The batch lasts until the pass is dropped.
    pub(crate) fn try_pass(&self) -> Option<Pass> {
        let passed = self.0.send_if_modified(|state| {
            state.inside += usize::from(state.open);
            state.open
        });
        passed.then(|| Pass(self.clone()))
    }

    /// Waits until it is open and goes through.
    pub(crate) async fn pass(&self) -> Pass {
        loop {
            if let Some(pass) = self.try_pass() {
                return pass;
            }
            self.wait_open().await;
        }
    }

    async fn wait_for(&self, condition: impl FnMut(&State) -> bool) {
        // The sender lives in `self`: the channel cannot be closed while we wait.
        let _ = self.0.subscribe().wait_for(condition).await;
    }
}

/// Held while a batch is being worked on.
pub(crate) struct Pass(Gate);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| state.inside -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_closed_gate_lets_nobody_in_and_tells_when_the_last_one_is_out() {
        let gate = Gate::new();
        let pass = gate.pass().await;
        gate.close();
        assert!(gate.try_pass().is_none());
        let quiet = gate.quiet();
        tokio::pin!(quiet);
        assert!(futures_util::poll!(quiet.as_mut()).is_pending());
        drop(pass);
        tokio::time::timeout(Duration::from_secs(5), quiet).await.unwrap();
        let waiting = gate.pass();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        gate.open();
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap();
    }
}
