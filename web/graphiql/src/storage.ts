// The browser's storage without anybody's token: GraphiQL's history keeps the headers of every request, whatever is said about
// persisting headers. They are left out when it is written, and the page's own ones are put in when it is read.
import type { Storage as GraphiqlStorage } from '@graphiql/toolkit';

const HISTORIES = ['graphiql:queries', 'graphiql:favorites'];

export function storageWithoutTokens(defaultHeaders: string | undefined): GraphiqlStorage {
  return {
    get length() {
      return localStorage.length;
    },
    clear: () => localStorage.clear(),
    removeItem: (key) => localStorage.removeItem(key),
    getItem: (key) => withHeaders(key, localStorage.getItem(key), defaultHeaders),
    setItem: (key, value) => localStorage.setItem(key, withHeaders(key, value, undefined)),
  };
}

function withHeaders<Text extends string | null>(key: string, text: Text, headers: string | undefined): Text | string {
  if (!text || !HISTORIES.includes(key)) {
    return text;
  }
  try {
    // The outer object has one member, a list of requests.
    return JSON.stringify(JSON.parse(text), (_, value: unknown) =>
      value !== null && typeof value === 'object' && 'query' in value ? { ...value, headers } : value,
    );
  } catch {
    return '';
  }
}
