import type { Fetcher, FetcherOpts, FetcherParams } from '@graphiql/toolkit';
import { type ExecutionResult, Kind, parse } from 'graphql';
import { createClient } from 'graphql-ws';

/** Closed for good: trying again with the same token would only delay the message. */
const FORBIDDEN = 4403;

/** Queries and mutations over HTTP, subscriptions over a WebSocket at the same URL. */
export function createFetcher(endpoint: URL): Fetcher {
  const socketUrl = new URL(endpoint);
  socketUrl.protocol = endpoint.protocol === 'https:' ? 'wss:' : 'ws:';
  return (given, options) => {
    const { params, isSubscription } = select(given);
    return isSubscription ? subscribe(socketUrl, params, options) : post(endpoint, params, options);
  };
}

/**
 * Finds the operation in the query itself: right after a change of tabs the editor's idea of the document and of the
 * operation's name is still that of the other tab.
 */
function select(given: FetcherParams): { params: FetcherParams; isSubscription: boolean } {
  try {
    const operations = parse(given.query).definitions.filter((definition) => definition.kind === Kind.OPERATION_DEFINITION);
    const [only] = operations;
    const params = only && operations.length === 1 ? { ...given, operationName: only.name?.value ?? null } : given;
    const selected = operations.find(({ name }) => (name?.value ?? null) === (params.operationName ?? null));
    return { params, isSubscription: selected?.operation === 'subscription' };
  } catch {
    // Not GraphQL: the server says what is wrong with it.
    return { params: given, isSubscription: false };
  }
}

async function post(endpoint: URL, params: FetcherParams, options: FetcherOpts | undefined): Promise<ExecutionResult> {
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: {
      accept: 'application/graphql-response+json, application/json;q=0.9',
      'content-type': 'application/json',
      ...options?.headers,
    },
    body: JSON.stringify(params),
  });
  const text = await response.text();
  try {
    return JSON.parse(text) as ExecutionResult;
  } catch {
    throw new Error(`The server answered ${response.status} ${response.statusText}, not with GraphQL: ${text.slice(0, 200)}`);
  }
}

/** One socket per subscription, so that it carries the headers as they are in the editor now. */
function subscribe(url: URL, params: FetcherParams, options: FetcherOpts | undefined): AsyncIterable<ExecutionResult> {
  const client = createClient({
    url: url.href,
    connectionParams: { ...options?.headers },
    shouldRetry: (event) => !(event instanceof CloseEvent && event.code === FORBIDDEN),
  });
  const results = client.iterate({
    query: params.query,
    variables: params.variables as Record<string, unknown> | undefined,
    operationName: params.operationName,
  });
  // Not a generator: `return` has to end the socket while `next` is still waiting.
  const readable: typeof results = {
    [Symbol.asyncIterator]: () => readable,
    next: () => results.next().catch((reason: unknown) => Promise.reject(explain(reason))),
    return: () => results.return?.() ?? Promise.resolve({ done: true, value: undefined }),
  };
  // The types differ only in how parsed an error is; GraphiQL prints it.
  return readable as AsyncIterable<ExecutionResult>;
}

/** Not an `Error`: GraphiQL would print its stack too. */
function explain(reason: unknown): unknown {
  if (reason instanceof CloseEvent) {
    return { message: `The server closed the socket: ${reason.code} ${reason.reason}`.trim() };
  }
  return reason;
}
