// The subscriptions of this page. GraphiQL has room for one and ends it when its tab is left; here they go on, so that one can
// order in one tab and watch in another. What they received is kept, because GraphiQL shows only the last result.
import type { TabsState } from '@graphiql/react';
import type { ExecutionResult } from 'graphql';

/** Kept per subscription, the newest ones: more is no longer read by anybody. */
const MAX_RESULTS = 50;
/** Listed at the same time; older ones are stopped. Each running one is a socket. */
const MAX_FEEDS = 5;

export type State = 'connecting' | 'listening' | 'reconnecting' | 'ended';

export interface Received {
  readonly id: number;
  readonly at: Date;
  readonly result: ExecutionResult;
}

export interface Feed {
  readonly id: number;
  readonly name: string;
  readonly state: State;
  /** Why it ended, unless it came to its end. */
  readonly failure: string | undefined;
  readonly received: readonly Received[];
}

/** How a subscription tells what it does. */
export interface Reporter {
  received(result: ExecutionResult): void;
  is(state: State, failure?: string): void;
  /** GraphiQL no longer wants to hear of it. */
  left(): void;
}

export class Feeds {
  #feeds: readonly Feed[] = [];
  #stops = new Map<number, () => void>();
  #tabOf = new Map<number, string>();
  #tabs: TabsState['tabs'] = [];
  #activeTab: string | undefined;
  #nextId = 1;
  #listeners = new Set<() => void>();

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly snapshot = (): readonly Feed[] => this.#feeds;

  /** GraphiQL calls it on every change, before a new subscription starts and right after an old one was left. */
  readonly tabsChanged = ({ tabs, activeTabIndex }: TabsState): void => {
    this.#tabs = tabs;
    this.#activeTab = tabs[activeTabIndex]?.id;
    for (const [id, tab] of this.#tabOf) {
      if (!tabs.some((open) => open.id === tab)) this.close(id);
    }
  };

  /** Starts one for the tab in front, instead of the one that it had. */
  start(name: string, stop: () => void): Reporter {
    const id = this.#nextId++;
    for (const [other, tab] of this.#tabOf) {
      if (tab === this.#activeTab) this.close(other);
    }
    this.#feeds.slice(MAX_FEEDS - 1).forEach((feed) => this.close(feed.id));
    this.#stops.set(id, stop);
    if (this.#activeTab) this.#tabOf.set(id, this.#activeTab);
    this.#set([{ id, name, state: 'connecting', failure: undefined, received: [] }, ...this.#feeds]);
    return {
      received: (result) => this.#received(id, result),
      is: (state, failure) => this.#update(id, (feed) => (feed.state === 'ended' ? feed : { ...feed, state, failure })),
      left: () => {
        // A change of tabs is reported only after it.
        queueMicrotask(() => {
          if (this.#tabOf.get(id) === this.#activeTab) this.stop(id);
        });
      },
    };
  }

  stop(id: number): void {
    this.#stops.get(id)?.();
    this.#update(id, (feed) => ({ ...feed, state: 'ended' }));
  }

  /** Stops it and takes it off the list. */
  close(id: number): void {
    this.#stops.get(id)?.();
    this.#stops.delete(id);
    this.#tabOf.delete(id);
    this.#set(this.#feeds.filter((feed) => feed.id !== id));
  }

  #received(id: number, result: ExecutionResult): void {
    const received = { id: this.#nextId++, at: new Date(), result };
    this.#update(id, (feed) => ({ ...feed, received: [received, ...feed.received].slice(0, MAX_RESULTS) }));
    // A tab in the background gets its text when it is opened again; GraphiQL has no other way to write into it.
    const tab = this.#tabs.find((open) => open.id === this.#tabOf.get(id));
    if (tab && tab.id !== this.#activeTab) tab.response = JSON.stringify(result, null, 2);
  }

  #update(id: number, change: (feed: Feed) => Feed): void {
    this.#set(this.#feeds.map((feed) => (feed.id === id ? change(feed) : feed)));
  }

  #set(feeds: readonly Feed[]): void {
    this.#feeds = feeds;
    this.#listeners.forEach((listener) => listener());
  }
}
