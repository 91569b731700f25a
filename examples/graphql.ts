// Documents written with this function are typed from the schema. `npm run generate` renews graphql-env.d.ts, the schema as types.
import { initGraphQLTada } from 'gql.tada';
import type { introspection } from './graphql-env.d.ts';

export type { ResultOf, TadaDocumentNode, VariablesOf } from 'gql.tada';

export const graphql = initGraphQLTada<{
  introspection: introspection;
  scalars: {
    /** An instant with milliseconds and `Z`, as `Date` reads it. */
    DateTime: string;
    /** Exact, so not a number: JavaScript would round it. */
    Decimal: string;
  };
}>();
