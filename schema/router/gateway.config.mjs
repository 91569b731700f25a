// Hive Gateway over the committed supergraph: an external router in place of the one inside Order Service. The subgraphs check tokens themselves,
// so the caller's has to reach them; and the trace goes on.
export const gatewayConfig = {
  supergraph: './supergraph.graphql',
  propagateHeaders: {
    fromClientToSubgraphs({ request }) {
      const names = ['authorization', 'traceparent'];
      return Object.fromEntries(names.map((name) => [name, request.headers.get(name)]).filter(([, value]) => value));
    },
  },
  // The subgraphs write their errors for clients, with codes.
  maskedErrors: false,
};
