/** What the server writes into the page. */
export interface Settings {
  title: string;
  /** Of the GraphQL endpoint, relative to the page. */
  endpoint: string;
  /** A token to begin with. */
  token: string | null;
  /** Whose token that is. */
  user: string | null;
  tabs: Tab[];
}

export interface Tab {
  title: string;
  query: string;
  variables: string | null;
}

export function readSettings(): Settings {
  const text = document.getElementById('settings')?.textContent;
  if (!text) {
    throw new Error('the page has no settings');
  }
  return JSON.parse(text) as Settings;
}
