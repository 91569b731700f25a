// Composes ../graphql/orders.graphql and payments.graphql into ../graphql/supergraph.graphql. Hints and errors end it: a supergraph that needs
// an explanation is not committed.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { compositionHasErrors, composeServices } from '@theguild/federation-composition';
import { parse } from 'graphql';

const folder = new URL('../graphql/', import.meta.url);
const read = (name) => parse(readFileSync(new URL(name, folder), 'utf8'));

const result = composeServices([
  { name: 'orders', url: 'http://order-service:8002/graphql', typeDefs: read('orders.graphql') },
  { name: 'payments', url: 'http://payment-service:8001/graphql', typeDefs: read('payments.graphql') },
]);

if (compositionHasErrors(result)) {
  for (const error of result.errors) console.error(error.message);
  process.exit(1);
}
const target = new URL('supergraph.graphql', folder);
writeFileSync(target, result.supergraphSdl.trimEnd() + '\n');
console.log(`wrote ${fileURLToPath(target)}`);
