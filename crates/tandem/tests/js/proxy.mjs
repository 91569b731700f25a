// A TCP proxy that breaks what goes through it, in every way in which networks do.
import net from 'node:net';

/** Connections before the first event: dropped at these points, so that each step of connecting is interrupted once. */
const FIRST = ['on connecting', 'on the request', 'on the response', 'on the response', 'after a while'];
/** Pause between two breaks: shorter and longer than a connection takes to be set up again. */
const PAUSE_MS = { min: 20, max: 400 };

export class Proxy {
  #port;
  #report;
  #open = new Set();
  #accepted = 0;
  #isWild = true;

  constructor(port, report) {
    this.#port = port;
    this.#report = report;
  }

  async listen() {
    const server = net.createServer((client) => this.#connect(client)).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    this.#breakSome();
    return server.address().port;
  }

  /** From now on it is a good network. Frozen connections stay frozen. */
  calm() {
    this.#isWild = false;
  }

  #connect(client) {
    const pair = { client, server: net.connect(this.#port, '127.0.0.1') };
    const end = () => {
      this.#open.delete(pair);
      pair.client.destroy();
      pair.server.destroy();
    };
    for (const socket of [client, pair.server]) socket.on('error', end).on('close', end);
    client.pipe(pair.server).pipe(client);
    const point = this.#isWild ? FIRST[this.#accepted++] : undefined;
    if (point === 'on connecting') this.#break(pair, 'reset', point);
    else if (point === 'on the request') client.once('data', () => this.#break(pair, 'reset', point));
    else if (point === 'on the response') pair.server.once('data', () => this.#break(pair, 'end', point));
    else this.#open.add(pair);
  }

  async #breakSome() {
    while (this.#isWild) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min)));
      const [pair] = this.#open;
      if (this.#isWild && pair) this.#break(pair, ['reset', 'end', 'freeze', 'cut'][Math.floor(Math.random() * 4)], 'at random');
    }
  }

  #break(pair, how, when) {
    this.#open.delete(pair);
    this.#report({ broken: how, when });
    if (how === 'reset') pair.client.resetAndDestroy();
    if (how === 'end') pair.client.end();
    if (how === 'freeze') {
      // Nothing arrives any more, and nobody says so.
      pair.server.unpipe(pair.client);
      pair.server.resume();
    }
    if (how === 'cut') {
      // The middle of a message.
      pair.server.unpipe(pair.client);
      pair.server.once('data', (bytes) => {
        pair.client.write(bytes.subarray(0, bytes.length / 2));
        pair.client.end();
      });
    }
  }
}
