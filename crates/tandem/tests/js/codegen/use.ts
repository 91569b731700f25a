// Compiled only: what a frontend writes with the generated types, and what the compiler has to refuse.
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import { AnythingDocument, CreateOrderDocument, MeDocument, OrderEventsDocument, type OrderStatus } from './generated.ts';

declare function run<Data, Variables>(document: TypedDocumentNode<Data, Variables>, variables: Variables): Promise<Data>;

export async function use(): Promise<void> {
  const total = { amount: '12.50', currencyCode: 'EUR' } as const;
  const { createOrder } = await run(CreateOrderDocument, { input: { total, description: 'A book', idempotencyKey: 'a' } });
  const number: string | undefined = createOrder?.order?.number;
  const amount: string | undefined = createOrder?.order?.total.amount;
  const field: string[] | null | undefined = createOrder?.userErrors[0]?.field;

  // @ts-expect-error an amount is no number: it would be rounded
  await run(CreateOrderDocument, { input: { total: { ...total, amount: 12.5 }, description: 'A book' } });
  // @ts-expect-error there is no such currency
  await run(CreateOrderDocument, { input: { total: { ...total, currencyCode: 'XAU' }, description: 'A book' } });
  // @ts-expect-error a description is needed
  await run(CreateOrderDocument, { input: { total } });

  const { me } = await run(MeDocument, { filter: { status: ['PENDING'] } });
  // @ts-expect-error the account may be missing
  me.account.balance;
  const created: string | undefined = me.orders?.nodes[0]?.createdAt;

  const { node } = await run(AnythingDocument, { id: 'x' });
  if (node?.__typename === 'Order') node.number satisfies string;
  if (node?.__typename === 'Payment') node.outcome satisfies 'PAID' | 'REJECTED';

  const { orderEvents } = await run(OrderEventsDocument, {});
  const status: OrderStatus = orderEvents.status;
  const isFinal: Record<typeof status, boolean> = { PENDING: false, PAID: true, REJECTED: true };
  console.log(number, amount, field, created, isFinal);
}
