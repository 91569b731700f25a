// Bundles the page into the folder that the Rust crate embeds. The same lock file gives the same bytes: names of files do not
// depend on where this runs, and the compressor is part of the lock file (the one in node differs between its versions).
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { gzipSync } from 'fflate';

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, '../../crates/graphql-transport/assets/graphiql');

/** GraphiQL formats JSON with Babel and prettier's printer for JavaScript; `format.ts` does it with a fraction of the code. */
const formatter = {
  name: 'formatter',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^prettier\/standalone$/ }, ({ kind, resolveDir }) =>
      kind === 'dynamic-import' && resolveDir.includes('@graphiql') ? { path: join(here, 'src/format.ts') } : undefined,
    );
    onResolve({ filter: /^prettier\/(plugins\/estree|parser-babel|parser-graphql)$/ }, ({ path }) => ({ path, namespace: 'unused' }));
    onLoad({ filter: /.*/, namespace: 'unused' }, () => ({ contents: 'export const printers = {}, parsers = {};' }));
  },
};

const { outputFiles, metafile } = await build({
  absWorkingDir: here,
  entryPoints: {
    main: 'src/main.tsx',
    'editor.worker': 'monaco-editor/esm/vs/editor/editor.worker.js',
    'json.worker': 'monaco-editor/esm/vs/language/json/json.worker.js',
    'graphql.worker': 'monaco-graphql/esm/graphql.worker.js',
  },
  outdir: 'out',
  bundle: true,
  splitting: true,
  format: 'esm',
  target: ['chrome114', 'firefox115', 'safari16.4'],
  minify: true,
  legalComments: 'none',
  charset: 'utf8',
  define: { 'process.env.NODE_ENV': '"production"' },
  loader: { '.ttf': 'file' },
  assetNames: '[name]',
  chunkNames: 'chunk-[hash]',
  plugins: [formatter],
  write: false,
  metafile: true,
  logLevel: 'warning',
});

await rm(target, { recursive: true, force: true });
await mkdir(join(target, 'assets'), { recursive: true });
await writeFile(join(target, 'index.html'), await readFile(join(here, 'src/index.html')));
let raw = 0;
let compressed = 0;
for (const { path, contents } of outputFiles) {
  const name = path.slice(join(here, 'out/').length);
  // Nothing loads the style sheets of later bundles; main.tsx imports the one that has any, so main.css has all of it.
  if (name.startsWith('chunk-') && name.endsWith('.css')) continue;
  const bytes = gzipSync(contents, { level: 9, mtime: 0 });
  raw += contents.length;
  compressed += bytes.length;
  await writeFile(join(target, 'assets', `${name}.gz`), bytes);
}
if (process.argv.includes('--metafile')) {
  await writeFile(join(here, 'metafile.json'), JSON.stringify(metafile));
}
const files = (await readdir(join(target, 'assets'))).length;
const kib = (bytes) => `${Math.round(bytes / 1024)} KiB`;
console.log(`graphiql: ${files} files, ${kib(raw)}, compressed ${kib(compressed)}`);
