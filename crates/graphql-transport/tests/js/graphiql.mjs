// Opens the page at argv[2] in a real browser and uses it. argv[3] is the folder for screenshots, if they are wanted.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [url, screenshots] = process.argv.slice(2);
const TIMEOUT_MS = 30_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});
const problems = [];

async function open(context) {
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) problems.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => problems.push(`error: ${error.stack}`));
  page.on('requestfailed', (request) => {
    // The browser itself gives up what it was still loading when the page is left; that is no failure of the server.
    const reason = request.failure()?.errorText;
    if (reason !== 'net::ERR_ABORTED') problems.push(`failed: ${request.url()} ${reason}`);
  });
  page.on('websocket', (socket) => check(socket.url()));
  await page.goto(url);
  await page.locator('.graphiql-query-editor .view-line').first().waitFor();
  return page;
}

function check(target) {
  const { protocol, hostname } = new URL(target);
  if (hostname !== '127.0.0.1' && protocol !== 'data:') problems.push(`left this machine: ${target}`);
}

/** Waits until the response editor shows `pattern`. */
async function response(page, pattern) {
  const editor = page.locator('.graphiql-response .view-lines');
  await page.waitForFunction(
    ([source]) => {
      // Monaco writes spaces as non-breaking ones.
      const text = document.querySelector('.graphiql-response .view-lines')?.innerText.replaceAll('\u00a0', ' ') ?? '';
      return new RegExp(source, 's').test(text);
    },
    [pattern.source],
  ).catch(async () => assert.fail(`${pattern} is not in ${await editor.innerText()}`));
}

async function use(colorScheme) {
  const context = await browser.newContext({ colorScheme, viewport: { width: 1280, height: 800 } });
  context.on('request', (request) => check(request.url()));
  const page = await open(context);
  const screenshot = (name) => screenshots && page.screenshot({ path: join(screenshots, `graphiql-${colorScheme}-${name}.png`) });

  assert.equal(await page.title(), 'Test API');
  await page.getByText('signed in as ada').waitFor();
  await page.getByRole('button', { name: 'Execute query' }).click();
  await response(page, /"hello": "world".*"user": "ada"/);
  await screenshot('query');

  // Completion needs the schema and the GraphQL worker.
  await page.locator('.graphiql-query-editor .view-lines').click();
  await page.keyboard.press('Control+End');
  await page.keyboard.type('query More { ');
  await page.keyboard.press('Control+Space');
  await page.locator('.suggest-widget').getByText('zebra', { exact: false }).first().waitFor();
  await screenshot('completion');
  await page.keyboard.press('Escape');

  await page.getByRole('tab', { name: 'Count' }).click();
  await page.getByRole('button', { name: 'Execute query' }).click();
  await response(page, /"count": 3/);
  await screenshot('subscription');

  // A refused token is shown at once, and not after minutes of trying.
  await page.getByRole('tab', { name: 'Hanging' }).click();
  await page.getByRole('button', { name: 'Execute query' }).click();
  await response(page, /"hanging": 1/);

  // A subscription outlives the change of tabs, and ends when it is stopped.
  const feed = page.getByRole('region', { name: 'Subscription Hanging' });
  await page.getByRole('tab', { name: 'Hello' }).click();
  await feed.getByText('listening', { exact: true }).waitFor();
  await page.getByRole('tab', { name: 'Hanging' }).click();
  await feed.getByRole('button', { name: 'Stop' }).click();
  await feed.getByText('ended', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Headers', exact: true }).click();
  await page.locator('.graphiql-editor-tool .graphiql-editor:not(.hidden)').click();
  // Key by key around the token: the editor closes quotes and braces by itself.
  for (const key of ['Control+End', 'ArrowUp', 'End', 'ArrowLeft', 'Backspace', 'Backspace', 'Backspace', 'b', 'a', 'd']) {
    await page.keyboard.press(key);
  }
  await page.getByText('using your own token').waitFor();
  await page.getByRole('button', { name: 'Execute query' }).click();
  await response(page, /4403/);

  // Prettify uses the formatters, which are loaded when they are needed.
  await page.getByRole('button', { name: 'Prettify query' }).click();

  // The documentation explorer.
  await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
  await page.getByText('Mutation').first().waitFor();
  await screenshot('documentation');

  const stored = await page.evaluate(() => JSON.stringify(localStorage));
  assert.ok(!stored.includes('Bearer'), `a token is stored: ${stored}`);

  // Coming back: the tabs are kept, the token is there again.
  await page.reload();
  await page.getByText('signed in as ada').waitFor();
  await page.getByRole('tab', { name: 'Hello' }).waitFor();
  await context.close();
}

try {
  await use('light');
  await use('dark');
  assert.deepEqual(problems, []);
  console.log('graphiql: ok');
} finally {
  await browser.close();
}
