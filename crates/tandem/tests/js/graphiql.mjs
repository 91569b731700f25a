// A newcomer on the page of GraphiQL at argv[2]: runs the tabs from left to right. argv[3]: folder for screenshots, if wanted.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Graphiql, launch, visit } from './browser.mjs';

const [url, screenshots] = process.argv.slice(2);
const browser = await launch();

async function use(colorScheme, booksBefore) {
  const { page, problems, close } = await visit(browser, `${url}/graphiql`, colorScheme);
  const graphiql = new Graphiql(page);
  const screenshot = (name) => screenshots && page.screenshot({ path: join(screenshots, `${colorScheme}-${name}.png`) });
  await graphiql.loaded();
  await page.getByText('signed in as demo').waitFor();
  await screenshot('1-opened');

  await graphiql.execute();
  await graphiql.response(/"createAccount".*"userErrors": \[\].*"topUpAccount".*"balance".*"userErrors": \[\]/);
  await screenshot('2-account');

  await graphiql.open('Live');
  await graphiql.execute();
  await graphiql.feed('Live').getByText('listening', { exact: true }).waitFor();
  await screenshot('3-live');

  await graphiql.open('Order');
  await graphiql.execute();
  await graphiql.response(/"number": ".*"status": "PENDING"/);
  // It went on while another tab is in front.
  const events = graphiql.feed('Live').getByRole('listitem');
  await events.nth(1).waitFor();
  await events.nth(0).getByText('PAID', { exact: true }).waitFor();
  assert.match(await events.nth(1).innerText(), /status PENDING/);
  assert.match(await events.nth(0).innerText(), /description A book\s+total \{ amount 12\.50 currencyCode EUR/);
  await screenshot('4-order');

  // And its own tab shows what happened last.
  await graphiql.open('Live');
  await graphiql.response(/"status": "PAID"/);
  await screenshot('5-live-again');

  await graphiql.open('Me');
  await graphiql.execute();
  const balance = (100 - 12.5 * (booksBefore + 1)).toFixed(2);
  await graphiql.response(new RegExp(`"balance": \\{\\s*"amount": "${balance}"`));
  await screenshot('6-me');

  await graphiql.feed('Live').getByRole('button', { name: 'Stop' }).click();
  await graphiql.feed('Live').getByText('ended', { exact: true }).waitFor();
  await graphiql.feed('Live').getByRole('button', { name: 'Close' }).click();
  await graphiql.feed('Live').waitFor({ state: 'detached' });

  // Closing its tab ends a subscription; stopping it in the editor does too.
  await graphiql.open('Live');
  await graphiql.execute();
  await graphiql.feed('Live').getByText('listening', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Stop query' }).click();
  await graphiql.feed('Live').getByText('ended', { exact: true }).waitFor();
  await graphiql.execute();
  await graphiql.feed('Live').getByText('listening', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Close Tab' }).click();
  await graphiql.feed('Live').waitFor({ state: 'detached' });

  await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
  await page.getByRole('region', { name: 'Documentation Explorer' }).getByText('Subscription').first().waitFor();
  await screenshot('7-documentation');
  await close();
  assert.deepEqual(problems, []);
}

try {
  await use('light', 0);
  await use('dark', 1);
  console.log('graphiql: ok');
} finally {
  await browser.close();
}
