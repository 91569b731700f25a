// Stands in for `prettier/standalone` where GraphiQL asks for it; see build.mjs.
import { applyEdits, format as formatJson } from 'jsonc-parser';

interface Options {
  parser: string;
}

export async function format(text: string, options: Options): Promise<string> {
  if (options.parser === 'jsonc') {
    return applyEdits(text, formatJson(text, undefined, { insertSpaces: true, tabSize: 2 }));
  }
  const [prettier, graphql] = await Promise.all([import('prettier/standalone'), import('prettier/plugins/graphql')]);
  return prettier.format(text, { parser: 'graphql', plugins: [graphql] });
}
