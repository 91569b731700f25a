// Below the response: what the page's subscriptions received, newest first.
import { useSyncExternalStore } from 'react';
import type { Feed, Feeds, Received } from './feeds.ts';

export function Live({ feeds }: { feeds: Feeds }) {
  const list = useSyncExternalStore(feeds.subscribe, feeds.snapshot);
  return list.map((feed) => <FeedView key={feed.id} feed={feed} feeds={feeds} />);
}

function FeedView({ feed, feeds }: { feed: Feed; feeds: Feeds }) {
  const { id, name, state, failure, received } = feed;
  const running = state !== 'ended';
  return (
    <section className="feed" aria-label={`Subscription ${name}`}>
      <header>
        <span className={`feed-state ${state}`} />
        <strong>{name}</strong>
        <span className="muted">{state}</span>
        <button type="button" onClick={() => (running ? feeds.stop(id) : feeds.close(id))}>
          {running ? 'Stop' : 'Close'}
        </button>
      </header>
      {failure && <p className="feed-error">{failure}</p>}
      {received.length === 0 && running && <p className="muted">Nothing has happened yet. It goes on listening while you work in other tabs.</p>}
      <ol aria-live="polite">
        {received.map((item) => (
          <ReceivedView key={item.id} item={item} />
        ))}
      </ol>
    </section>
  );
}

function ReceivedView({ item: { at, result } }: { item: Received }) {
  // A subscription has one root field, whose name is always the same.
  const value = Object.values(result.data ?? {})[0];
  return (
    <li>
      <time dateTime={at.toISOString()}>{at.toTimeString().slice(0, 8)}</time>
      <div>
        {result.errors?.map((error, index) => (
          <span key={index} className="feed-error">
            {error.message}
          </span>
        ))}
        {value !== undefined && value !== null && <Value value={value} />}
      </div>
    </li>
  );
}

/** In short: names, and what they stand for, without the ones that stand for nothing. The whole result is in the tab. */
function Value({ value, nested = false }: { value: unknown; nested?: boolean }) {
  if (Array.isArray(value)) {
    return (
      <>
        <i>[</i> {value.map((item, index) => <Value key={index} value={item} nested />)} <i>]</i>
      </>
    );
  }
  if (value === null) {
    return <i>null</i>;
  }
  if (typeof value !== 'object') {
    return <b>{String(value)}</b>;
  }
  return (
    <>
      {nested && <i>{'{ '}</i>}
      {Object.entries(value).filter(([, member]) => member !== null).map(([name, member]) => (
        <span key={name} className="feed-member">
          <i>{name}</i> <Value value={member} nested />{' '}
        </span>
      ))}
      {nested && <i>{'}'}</i>}
    </>
  );
}
