import './workers.ts';
// Statically, because a bundle that is loaded later would come without its style sheets.
import 'monaco-graphql/esm/monaco-editor.js';
import 'graphiql/graphiql.css';
import '@graphiql/react/style.css';
import '@graphiql/plugin-doc-explorer/style.css';
import '@graphiql/plugin-history/style.css';
import './page.css';

import { GraphiQL } from 'graphiql';
import { useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Feeds } from './feeds.ts';
import { createFetcher } from './fetcher.ts';
import { Live } from './live.tsx';
import { readSettings, type Settings } from './settings.ts';
import { storageWithoutTokens } from './storage.ts';

const settings = readSettings();
const feeds = new Feeds();
const fetcher = createFetcher(new URL(settings.endpoint, document.baseURI), feeds);
const defaultHeaders = settings.token
  ? JSON.stringify({ Authorization: `Bearer ${settings.token}` }, null, 2)
  : undefined;

const storage = storageWithoutTokens(defaultHeaders);

/** What fits on a small laptop. */
const MAX_COMMENT_CHARS = 42;

const defaultTabs = settings.tabs.map(({ title, query, variables }) => ({
  query: `${comment(title)}\n\n${query.trim()}\n`,
  variables,
  headers: defaultHeaders ?? null,
}));

/** In lines that are visible whole beside the buttons. */
function comment(text: string): string {
  const lines = ['#'];
  for (const word of text.split(' ')) {
    const line = `${lines.at(-1)} ${word}`;
    if (line.length > MAX_COMMENT_CHARS) lines.push(`# ${word}`);
    else lines[lines.length - 1] = line;
  }
  return lines.join('\n');
}

/** Whose requests these are, read from the headers as they stand in the editor. */
function caller(headers: string | undefined, { token, user }: Settings): string {
  const sent = /"authorization"\s*:\s*"bearer\s+([^"]+)"/i.exec(headers ?? '')?.[1];
  if (!sent) {
    return 'not signed in: add {"Authorization": "Bearer …"} to Headers';
  }
  return sent === token ? `signed in as ${user ?? 'the demo user'}` : 'using your own token';
}

function Page() {
  const [headers, setHeaders] = useState(defaultHeaders);
  return (
    <GraphiQL
      fetcher={fetcher}
      {...(defaultTabs.length > 0 && { defaultTabs })}
      {...(defaultHeaders !== undefined && { defaultHeaders, initialHeaders: defaultHeaders })}
      storage={storage}
      onEditHeaders={setHeaders}
      onTabChange={feeds.tabsChanged}
      shouldPersistHeaders={false}
      // Open where there is something to fill in.
      defaultEditorToolsVisibility={defaultHeaders === undefined ? 'headers' : false}
    >
      <GraphiQL.Logo>
        <span className="page-title">{settings.title}</span>
        <span className="page-caller" title="Read from the Headers tab">
          {caller(headers, settings)}
        </span>
      </GraphiQL.Logo>
      <GraphiQL.Footer>
        <Live feeds={feeds} />
      </GraphiQL.Footer>
    </GraphiQL>
  );
}

const root = document.getElementById('graphiql');
if (root) {
  createRoot(root).render(<Page />);
}
