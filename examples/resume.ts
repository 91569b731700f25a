// Follows the caller's orders without gap or repeat, however often the connection breaks. Nothing here needs Node: copy it.
import { print } from 'graphql';
import { type Client, type ClientOptions, createClient } from 'graphql-ws';
import { graphql, type ResultOf, type TadaDocumentNode } from './graphql.ts';

const OrderFields = graphql(`
  fragment OrderFields on Order @_unmask {
    id
    number
    description
    status
    rejectionReason
    total { amount currencyCode }
    updatedAt
  }
`);

const Cursor = graphql(`
  query Cursor {
    orderEventsCursor
  }
`);

const Orders = graphql(`
  query Orders {
    orders(first: 20) { nodes { ...OrderFields } }
  }
`, [OrderFields]);

const OrderEvents = graphql(`
  subscription OrderEvents($after: String!) {
    orderEvents(after: $after) { cursor version status occurredAt order { ...OrderFields } }
  }
`, [OrderFields]);

export type Order = ResultOf<typeof OrderFields>;
export type OrderEvent = ResultOf<typeof OrderEvents>['orderEvents'];

export interface Listener {
  /** The newest orders as they are: show these instead of all others. Comes first, and again if too much was missed. */
  snapshot(orders: Order[]): void;
  /** What happened since: every event once, those of one order in order. `event.order` is the order as it is, so it can be shown at once. */
  event(event: OrderEvent): void;
}

/** Runs until `signal` is aborted; fails only where trying again cannot help, for example after a change of the schema. */
export async function followOrders(client: Client, listener: Listener, signal: AbortSignal): Promise<void> {
  // graphql-ws sends this very object again whenever it has reconnected: with `after` as it is then, the server goes on from there.
  let variables: { after: string } | undefined;
  while (!signal.aborted) {
    try {
      variables ??= await start(client, listener, signal);
      const resumable = variables;
      await run(client, OrderEvents, resumable, signal, ({ orderEvents }) => {
        // Here, and not in a `for await` over `client.iterate`: what waits there unread would be sent again.
        resumable.after = orderEvents.cursor;
        listener.event(orderEvents);
      });
    } catch (failure) {
      if (signal.aborted) return;
      const code = failure instanceof Refused ? failure.code : undefined;
      if (code === 'CURSOR_EXPIRED') {
        variables = undefined;
      } else if (code === undefined || !TRANSIENT.includes(code)) {
        throw failure;
      }
    }
    await pause(RESUME_MS);
  }
}

/** The cursor, and only then the orders, in a request of its own: what happens in between is in both, and so in neither missed. */
async function start(client: Client, listener: Listener, signal: AbortSignal): Promise<{ after: string }> {
  const { orderEventsCursor } = await read(client, Cursor, signal);
  const { orders } = await read(client, Orders, signal);
  listener.snapshot(orders.nodes);
  return { after: orderEventsCursor };
}

/** Refusals that pass. */
const TRANSIENT = ['SERVICE_UNAVAILABLE', 'TIMEOUT', 'RATE_LIMITED', 'INTERNAL_SERVER_ERROR'];
/** Pause before asking again after an answer that ended the subscription; connections that break wait for themselves. */
const RESUME_MS = 1000;

class Refused extends Error {
  readonly code: string | undefined;
  constructor([first]: readonly { message: string; extensions?: Record<string, unknown> }[]) {
    super(first?.message);
    this.code = first?.extensions?.['code'] as string | undefined;
  }
}

/** The answer to a query. If the connection breaks between answer and end, it is asked and answered again: the first one counts. */
function read<Data extends object>(
  client: Client,
  query: TadaDocumentNode<Data, Record<string, never>, unknown>,
  signal: AbortSignal,
): Promise<Data> {
  return new Promise((answer, fail) => {
    run(client, query, {}, signal, answer).then(() => fail(new Error('ended without an answer')), fail);
  });
}

/** Any operation over the socket, which a lost connection only delays: graphql-ws sends it again. */
function run<Data extends object, Variables extends Record<string, unknown>>(
  client: Client,
  document: TadaDocumentNode<Data, Variables, unknown>,
  variables: Variables,
  signal: AbortSignal,
  next: (data: Data) => void,
): Promise<void> {
  signal.throwIfAborted();
  let stop = () => {};
  const ended = new Promise<void>((complete, fail) => {
    const refuse = (reason: unknown) => {
      fail(reason);
      stop();
    };
    stop = client.subscribe<Data>(
      { query: print(document), variables },
      {
        next: ({ data, errors }) => {
          if (errors) return refuse(new Refused(errors));
          try {
            if (data) next(data);
          } catch (error) {
            // The listener's own; thrown from here it would end the connection, again and again.
            refuse(error);
          }
        },
        error: (reason) => fail(Array.isArray(reason) ? new Refused(reason) : reason),
        complete,
      },
    );
  });
  const abort = () => stop();
  signal.addEventListener('abort', abort);
  return ended.finally(() => signal.removeEventListener('abort', abort));
}

/** Often enough for a person not to wonder, rarely enough for a battery. */
const PING_MS = 10_000;

/** A connection that comes back by itself. `token` is asked for at each connecting, so that it may be renewed (close code 4403). */
export function connect(url: string, token: () => string | Promise<string>, options?: Partial<ClientOptions>): Client {
  const pingMs = options?.keepAlive ?? PING_MS;
  let silence: ReturnType<typeof setTimeout>;
  const client = createClient({
    url: url.replace(/^http/, 'ws'),
    connectionParams: async () => ({ Authorization: `Bearer ${await token()}` }),
    retryAttempts: Infinity,
    // Also when nobody answers; by default only when an open connection breaks.
    shouldRetry: () => true,
    // Soon at first, then rarely, and never all clients at the same moment.
    retryWait: (retries) => pause(Math.random() * Math.min(10_000, 250 * 2 ** retries)),
    // A network that vanished says nothing: without an answer to a ping the connection is gone.
    keepAlive: pingMs,
    // One socket for one operation after the other.
    lazyCloseTimeout: 1_000,
    ...options,
    on: {
      ...options?.on,
      ping: (received) => {
        if (!received) silence = setTimeout(() => client.terminate(), pingMs / 2);
      },
      pong: (received) => {
        if (received) clearTimeout(silence);
      },
      closed: (event) => {
        clearTimeout(silence);
        options?.on?.closed?.(event);
      },
    },
  });
  return client;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
