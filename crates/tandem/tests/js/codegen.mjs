// Generates types from a schema as graphql-codegen does in frontends, and compiles a use of them strictly. argv: schema, folder to work in.
import { readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { codegen } from '@graphql-codegen/core';
import * as typedDocuments from '@graphql-codegen/typed-document-node';
import * as operations from '@graphql-codegen/typescript-operations';
import { parse } from 'graphql';
import ts from 'typescript';

const [schemaFile, folder] = process.argv.slice(2);
const here = import.meta.dirname;

const output = await codegen({
  filename: 'generated.ts',
  schema: parse(await readFile(schemaFile, 'utf8')),
  documents: [{ location: 'operations.graphql', document: parse(await readFile(join(here, 'codegen/operations.graphql'), 'utf8')) }],
  config: {
    strictScalars: true,
    scalars: { DateTime: 'string', Decimal: 'string' },
    enumsAsTypes: true,
    useTypeImports: true,
  },
  plugins: [{ operations: {} }, { typedDocuments: {} }],
  pluginMap: { operations, typedDocuments },
});
await writeFile(join(folder, 'generated.ts'), output);
await writeFile(join(folder, 'use.ts'), await readFile(join(here, 'codegen/use.ts')));
await symlink(join(here, 'node_modules'), join(folder, 'node_modules'));

const program = ts.createProgram([join(folder, 'use.ts')], {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  strict: true,
  noUncheckedIndexedAccess: true,
  exactOptionalPropertyTypes: true,
  verbatimModuleSyntax: true,
  allowImportingTsExtensions: true,
  noEmit: true,
  types: [],
});
const diagnostics = ts.getPreEmitDiagnostics(program);
if (diagnostics.length > 0) {
  console.error(ts.formatDiagnostics(diagnostics, { getCanonicalFileName: String, getCurrentDirectory: () => folder, getNewLine: () => '\n' }));
  process.exit(1);
}
console.log('codegen: ok');
