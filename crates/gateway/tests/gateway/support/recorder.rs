//! A subgraph that remembers what it was asked and passes it on.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use gateway::{Caller, Subgraph, SubgraphError, SubgraphRequest, SubgraphResponse};
use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Call {
    pub variables: Value,
}

impl Call {
    /// The number of representations that were sent.
    pub fn representations(&self) -> usize {
        let lists = self.variables.as_object().unwrap().values();
        lists.filter_map(Value::as_array).flatten().filter(|item| item.get("__typename").is_some()).count()
    }
}

pub struct Recorder {
    inner: Arc<dyn Subgraph>,
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    pub fn new(inner: Arc<dyn Subgraph>) -> Arc<Self> {
        Arc::new(Self { inner, calls: Mutex::default() })
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn record(&self, request: &SubgraphRequest) {
        let call = Call { variables: serde_json::to_value(&request.variables).unwrap() };
        self.calls.lock().unwrap().push(call);
    }
}

#[async_trait]
impl Subgraph for Recorder {
    async fn execute(&self, request: SubgraphRequest, caller: &Caller) -> Result<SubgraphResponse, SubgraphError> {
        self.record(&request);
        self.inner.execute(request, caller).await
    }

    fn subscribe(
        &self,
        request: SubgraphRequest,
        caller: &Caller,
    ) -> BoxStream<'static, Result<SubgraphResponse, SubgraphError>> {
        self.record(&request);
        self.inner.subscribe(request, caller)
    }
}
