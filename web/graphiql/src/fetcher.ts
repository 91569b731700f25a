import type { Fetcher, FetcherOpts, FetcherParams, Observable } from '@graphiql/toolkit';
import { type ExecutionResult, Kind, parse } from 'graphql';
import { createClient } from 'graphql-ws';
import type { Feeds } from './feeds.ts';

/** Closed for good: trying again with the same token would only delay the message. */
const FORBIDDEN = 4403;

/** A server that is being built anew is back within minutes. */
const RETRIES = 200;
/** Soon enough to miss little: what happens in between is not sent again. */
const RETRY_MS = 1000;

/** Queries and mutations over HTTP, subscriptions over a WebSocket at the same URL. */
export function createFetcher(endpoint: URL, feeds: Feeds): Fetcher {
  const socketUrl = new URL(endpoint);
  socketUrl.protocol = endpoint.protocol === 'https:' ? 'wss:' : 'ws:';
  return (given, options) => {
    const { params, isSubscription } = select(given);
    return isSubscription ? subscribe(socketUrl, params, options, feeds) : post(endpoint, params, options);
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
  const answer = fetch(endpoint, {
    method: 'POST',
    headers: {
      accept: 'application/graphql-response+json, application/json;q=0.9',
      'content-type': 'application/json',
      ...options?.headers,
    },
    body: JSON.stringify(params),
  });
  const response = await answer.catch(() => fail('The server cannot be reached'));
  const text = await response.text();
  try {
    return JSON.parse(text) as ExecutionResult;
  } catch {
    return fail(`The server answered ${response.status} ${response.statusText}, not with GraphQL: ${text.slice(0, 200)}`);
  }
}

/** Not with an `Error`: GraphiQL would print its stack too. */
function fail(message: string): Promise<never> {
  return Promise.reject({ message });
}

/** One socket per subscription, so that it carries the headers as they are in the editor now. */
function subscribe(
  url: URL,
  { query, variables, operationName }: FetcherParams,
  options: FetcherOpts | undefined,
  feeds: Feeds,
): Observable<ExecutionResult> {
  const observable = {
    subscribe: (observer: Observer) => {
      let isWatched = true;
      const feed = feeds.start(operationName ?? 'Subscription', () => void client.dispose());
      const client = createClient({
        url: url.href,
        connectionParams: { ...options?.headers },
        shouldRetry: (event) => !(event instanceof CloseEvent && event.code === FORBIDDEN),
        retryAttempts: RETRIES,
        retryWait: () => new Promise((resolve) => setTimeout(resolve, RETRY_MS)),
        on: { connected: () => feed.is('listening'), closed: () => feed.is('reconnecting') },
      });
      client.subscribe<Record<string, unknown>>(
        { query, variables: variables as Record<string, unknown> | undefined, operationName },
        {
          // The types differ only in how parsed an error is.
          next: (result) => {
            feed.received(result as ExecutionResult);
            if (isWatched) observer.next(result as ExecutionResult);
          },
          error: (reason) => {
            const failure = explain(reason);
            feed.is('ended', failure.map(({ message }) => message).join('; '));
            if (isWatched) observer.error(failure);
          },
          complete: () => {
            feed.is('ended');
            if (isWatched) observer.complete();
          },
        },
      );
      return {
        unsubscribe: () => {
          isWatched = false;
          feed.left();
        },
      };
    },
  };
  // The type has forms that GraphiQL does not use.
  return observable as Observable<ExecutionResult>;
}

interface Observer {
  next(result: ExecutionResult): void;
  error(reason: unknown): void;
  complete(): void;
}

/** Errors as GraphQL has them, which is how GraphiQL prints them. */
function explain(reason: unknown): { message: string }[] {
  if (Array.isArray(reason)) {
    return reason as { message: string }[];
  }
  if (reason instanceof CloseEvent) {
    return [{ message: `The server closed the socket: ${reason.code} ${reason.reason}`.trim() }];
  }
  return [{ message: reason instanceof Error ? reason.message : 'The server cannot be reached' }];
}
