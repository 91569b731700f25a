// The page at argv[2], in a browser without JavaScript. argv[3]: folder for screenshots, if wanted.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { launch, visit } from './browser.mjs';

const [url, screenshots] = process.argv.slice(2);
const browser = await launch();
try {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1000, 390]) {
      const viewport = { width, height: 700 };
      const { page, problems, close } = await visit(browser, url, colorScheme, { viewport, javaScriptEnabled: false });
      if (screenshots) await page.screenshot({ path: join(screenshots, `start-${colorScheme}-${width}.png`) });
      // One click selects the commands, and only them.
      await page.locator('#curl').click();
      assert.match(await page.locator('#curl').innerText(), new RegExp(`^TOKEN='.+'\ncurl -s ${url}/graphql `));
      const [{ width: needed }] = await page.locator('html').evaluateAll(([html]) => [{ width: html.scrollWidth }]);
      assert.ok(needed <= width, `${needed} of ${width} pixels`);
      for (const name of ['Schema', 'Health', 'GraphiQL']) {
        const link = await page.getByRole('link', { name }).getAttribute('href');
        assert.equal((await page.request.get(new URL(link, url).href)).status(), 200, name);
      }
      await page.getByRole('link', { name: 'GraphiQL' }).click();
      assert.equal(new URL(page.url()).pathname, '/graphiql');
      await close();
      assert.deepEqual(problems, []);
    }
  }
  console.log('start page: ok');
} finally {
  await browser.close();
}
