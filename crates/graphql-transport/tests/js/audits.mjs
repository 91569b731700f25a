// Runs the official GraphQL-over-HTTP audits against the server at argv[2]; every one of them must pass.
import { auditServer } from 'graphql-http';

const EXPECTED_AUDITS = 61;

const results = await auditServer({ url: process.argv[2] });
const failed = results.filter((result) => result.status !== 'ok');
for (const { id, name, reason } of failed) {
  console.error(`${id} ${name}: ${reason}`);
}
if (results.length !== EXPECTED_AUDITS || failed.length > 0) {
  console.error(`${results.length - failed.length} of ${results.length} audits passed, expected ${EXPECTED_AUDITS}`);
  process.exit(1);
}
console.log(`${results.length} of ${results.length} audits passed`);
