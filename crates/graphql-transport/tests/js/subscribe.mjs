// A client as applications use it: npm graphql-ws, with its default idea of which close codes are worth a retry.
// Prints one JSON line per happening. argv: URL, the tokens to use one after the other (the last one stays), and the query.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const [url, tokens, query] = process.argv.slice(2);
const queue = tokens.split(',');
const print = (happening) => console.log(JSON.stringify(happening));

const client = createClient({
  url,
  webSocketImpl: WebSocket,
  connectionParams: () => ({ Authorization: `Bearer ${queue.length > 1 ? queue.shift() : queue[0]}` }),
  retryAttempts: 50,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 50)),
  on: {
    connected: () => print({ connected: true }),
    closed: (event) => print({ closed: event.code, reason: event.reason }),
  },
});

client.subscribe(
  { query },
  {
    next: (result) => print({ next: result }),
    error: (error) => {
      print({ error: Array.isArray(error) ? error : String(error.code ?? error) });
      process.exit(0);
    },
    complete: () => {
      print({ complete: true });
      void client.dispose();
    },
  },
);
