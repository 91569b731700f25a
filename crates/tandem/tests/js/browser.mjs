// A real browser that reports whatever a reader would call a problem.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const TIMEOUT_MS = 30_000;

export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
}

/** A fresh reader at `url`. `problems` collects errors of the console and requests that leave this machine. */
export async function visit(browser, url, colorScheme, { viewport = { width: 1280, height: 800 }, ...options } = {}) {
  const context = await browser.newContext({ colorScheme, viewport, ...options });
  const problems = [];
  const check = (target) => {
    const { protocol, hostname } = new URL(target);
    if (!['127.0.0.1', 'localhost'].includes(hostname) && protocol !== 'data:') problems.push(`left this machine: ${target}`);
  };
  context.on('request', (request) => check(request.url()));
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
  return { page, problems, close: () => context.close() };
}

/** What one does on the page of GraphiQL. */
export class Graphiql {
  constructor(page) {
    this.page = page;
  }

  async loaded() {
    await this.page.locator('.graphiql-query-editor .view-line').first().waitFor();
  }

  async open(tab) {
    await this.page.getByRole('tab', { name: tab, exact: true }).click();
    await this.text('.graphiql-query-editor .view-lines', new RegExp(`(query|mutation|subscription) ${tab} `));
  }

  async execute() {
    await this.page.getByRole('button', { name: 'Execute query' }).click();
  }

  /** Waits until the response shows `pattern`. */
  async response(pattern) {
    return this.text('.graphiql-response .view-lines', pattern);
  }

  /** A subscription below the response. */
  feed(name) {
    return this.page.getByRole('region', { name: `Subscription ${name}` });
  }

  async text(selector, pattern) {
    const read = ([selected]) => document.querySelector(selected)?.innerText.replaceAll('\u00a0', ' ') ?? '';
    const matches = ([selected, source]) => {
      // Monaco writes spaces as non-breaking ones.
      const text = document.querySelector(selected)?.innerText.replaceAll('\u00a0', ' ') ?? '';
      return new RegExp(source, 's').test(text);
    };
    await this.page
      .waitForFunction(matches, [selector, pattern.source])
      .catch(async () => assert.fail(`${pattern} is not in ${await this.page.evaluate(read, [selector])}`));
  }
}
