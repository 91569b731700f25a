// Takes the picture of the README: an order being paid, watched live. Starts a server of its own on an empty folder.
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { Graphiql, launch, visit } from './browser.mjs';

const root = join(import.meta.dirname, '../../../..');
const target = join(root, 'docs/images/graphiql.png');

const folder = await mkdtemp(join(tmpdir(), 'tandem-screenshot-'));
const server = spawn('cargo', ['run', '--quiet', '--', '--port', '0', '--data-dir', folder], {
  cwd: root,
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, RUST_LOG: 'error' },
});
const browser = await launch();
try {
  const url = await greeting();
  const { page } = await visit(browser, url, 'light', { viewport: { width: 1160, height: 600 }, deviceScaleFactor: 1.25 });
  const graphiql = new Graphiql(page);
  await graphiql.loaded();
  await graphiql.execute();
  await graphiql.response(/"topUpAccount".*"balance"/);
  await graphiql.open('Live');
  await graphiql.execute();
  await graphiql.feed('Live').getByText('listening', { exact: true }).waitFor();
  await graphiql.open('Order');
  await graphiql.execute();
  await graphiql.feed('Live').getByText('PAID', { exact: true }).waitFor();
  // Without the traces of a mouse: the mark on the button, and a scroll bar that fades.
  await page.mouse.move(900, 350);
  await page.locator('.graphiql-query-editor .scrollbar.visible').first().waitFor({ state: 'detached' });
  await mkdir(dirname(target), { recursive: true });
  await page.screenshot({ path: target, animations: 'disabled', caret: 'hide' });
  console.log(target);
} finally {
  await browser.close();
  if (server.exitCode === null && server.kill('SIGTERM')) await new Promise((resolve) => server.once('exit', resolve));
  await rm(folder, { recursive: true, force: true });
}

/** The address of the page, from what the server says when it is ready. */
async function greeting() {
  for await (const line of createInterface({ input: server.stdout })) {
    const url = /GraphiQL\s+(http\S+)/.exec(line)?.[1];
    if (url) {
      server.stdout.resume();
      return url;
    }
  }
  throw new Error('the server did not start');
}
