// One order as applications follow it: npm graphql-ws. argv: URL, token, id of the order. Prints one JSON line per happening.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const [url, token, orderId] = process.argv.slice(2);
const print = (happening) => console.log(JSON.stringify(happening));
const client = createClient({ url: url.replace(/^http/, 'ws'), webSocketImpl: WebSocket, connectionParams: { Authorization: `Bearer ${token}` } });

client.subscribe(
  {
    query: 'subscription Follow($orderId: ID!) { orderStatusChanged(orderId: $orderId) { version status order { id status } } }',
    variables: { orderId },
  },
  {
    next: ({ data, errors }) => print(errors ? { errors } : { event: data.orderStatusChanged }),
    error: (error) => {
      print({ error });
      void client.dispose();
    },
    complete: () => {
      print({ complete: true });
      void client.dispose();
    },
  },
);
