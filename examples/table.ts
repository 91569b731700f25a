// A live table of one's orders in the terminal. Environment: TOKEN, and TANDEM_URL if the server is not http://localhost:8000.
import WebSocket from 'ws';
import { connect, followOrders, type Order } from './resume.ts';

const BASE = (process.env['TANDEM_URL'] ?? 'http://localhost:8000').replace(/\/+$/, '');
/** As many as fit on every screen. */
const MAX_ROWS = 15;

/** Newest last. */
const orders = new Map<string, Order>();
let state = 'connecting';
let isKnown = false;

function show(order: Order): void {
  orders.set(order.id, order);
  const [oldest] = orders.keys();
  if (oldest !== undefined && orders.size > MAX_ROWS) orders.delete(oldest);
}

function draw(): void {
  const rows = [...orders.values()].reverse().map(row);
  if (rows.length === 0 && isKnown) rows.push('No orders yet. To order something, open', `${BASE}/graphiql and run the tabs Account and Order.`);
  if (process.stdout.isTTY) console.clear();
  console.log(['', `Orders at ${BASE} (${state}, Ctrl-C ends)`, '', ...rows].map((line) => `  ${line}`).join('\n'));
}

function row({ number, status, rejectionReason, total, description, updatedAt }: Order): string {
  const amount = `${total.amount} ${total.currencyCode}`;
  const time = new Date(updatedAt).toTimeString().slice(0, 8);
  // Descriptions are anybody's text; control characters could move the cursor.
  const text = description.replace(/\p{C}/gu, ' ').slice(0, 40);
  return `${time}  ${number.padEnd(10)} ${status.padEnd(8)} ${amount.padStart(14)}  ${text}${rejectionReason ? `: ${rejectionReason}` : ''}`;
}

/** In production from your login. A server on this machine has a token of its user `demo` in the page of GraphiQL. */
async function findToken(): Promise<string> {
  if (process.env['TOKEN']) return process.env['TOKEN'];
  const page = await fetch(`${BASE}/graphiql`).catch(() => undefined);
  if (!page) throw new Error(`nothing answers at ${BASE}; start the server with: cargo run`);
  if (page.status === 503) throw new Error(`the server at ${BASE} is not ready yet`);
  const token = /"token":"([^"]+)"/.exec(await page.text())?.[1];
  if (!token) throw new Error('set TOKEN; for a token run, where you start the server: cargo run --quiet -- token --user YOU');
  return token;
}

/** Node's sockets wait for an answer as long as the system does; browsers have a limit of their own. */
class PatientWebSocket extends WebSocket {
  constructor(url: string, protocols: string) {
    super(url, protocols, { handshakeTimeout: 10_000 });
  }
}

async function main(): Promise<void> {
  // Once to be sure that there is one; later a restarted server may have another key.
  await findToken();
  const update = (now: string) => {
    state = now;
    draw();
  };
  const client = connect(`${BASE}/graphql`, findToken, {
    webSocketImpl: PatientWebSocket,
    on: {
      connected: () => update('live'),
      closed: (event) => update(`${describe(event)}, trying again`),
    },
  });
  const listener = {
    snapshot: (newest: Order[]) => {
      isKnown = true;
      orders.clear();
      newest.reverse().forEach(show);
      draw();
    },
    event: ({ order }: { order: Order }) => {
      show(order);
      draw();
    },
  };
  const stopped = new AbortController();
  process.once('SIGINT', () => stopped.abort());
  await followOrders(client, listener, stopped.signal);
  await client.dispose();
}

function describe(event: unknown): string {
  const { code, reason } = event as { code: number; reason: string };
  return `disconnected: ${code} ${reason}`.trim();
}

main().catch((reason: unknown) => {
  console.error(reason instanceof Error ? reason.message : describe(reason));
  process.exitCode = 1;
});
