// Runs the example's own code through a network that breaks all the time. argv: URL of the server, token, and `direct` to go
// without the network. Prints one JSON line per happening; the line `calm` on stdin ends the breaking.
import { createInterface } from 'node:readline';
import { connect, followOrders } from '../../../../examples/resume.ts';
import { Proxy } from './proxy.mjs';
import WebSocket from 'ws';

const [base, token, direct] = process.argv.slice(2) as [string, string, string?];
const print = (happening: object) => console.log(JSON.stringify(happening));

/** Browsers give up a handshake by themselves. */
class ImpatientWebSocket extends WebSocket {
  constructor(url: string, protocols: string) {
    super(url, protocols, { handshakeTimeout: 1_000 });
  }
}

const proxy = new Proxy(Number(new URL(base).port), print);
const port = direct ? new URL(base).port : await proxy.listen();
createInterface({ input: process.stdin }).on('line', () => proxy.calm()).on('close', () => process.exit());

const client = connect(`http://127.0.0.1:${port}/graphql`, () => token, {
  webSocketImpl: ImpatientWebSocket,
  keepAlive: 200,
  // Many breaks in a short time are the point here.
  retryWait: () => new Promise((resolve) => setTimeout(resolve, Math.random() * 100)),
  on: { connected: () => print({ connected: true }) },
});
await followOrders(
  client,
  {
    snapshot: (orders) => print({ snapshot: orders.map(({ id }) => id) }),
    event: ({ cursor, version, status, order }) => print({ event: { cursor, version, status, order: order.id } }),
  },
  new AbortController().signal,
);
