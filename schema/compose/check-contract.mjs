// Proves that the public schema is a superset of the contract that clients rely on, and that everything in it is described.
import { readFileSync } from 'node:fs';
import { buildSchema, findBreakingChanges, isEnumType, isInputObjectType, isInterfaceType, isObjectType } from 'graphql';

const folder = new URL('../graphql/', import.meta.url);
const load = (name) => buildSchema(readFileSync(new URL(name, folder), 'utf8'));

const contract = load('contract.graphql');
const published = load('public.graphql');

const broken = findBreakingChanges(contract, published).map(({ type, description }) => `${type}: ${description}`);
const undescribed = [];
const note = (path, element) => element.description?.trim() || undescribed.push(path);

for (const type of Object.values(published.getTypeMap())) {
  const builtIn = type.name.startsWith('__') || ['String', 'Int', 'Float', 'Boolean', 'ID'].includes(type.name);
  if (builtIn) continue;
  note(type.name, type);
  if (isObjectType(type) || isInterfaceType(type) || isInputObjectType(type)) {
    for (const field of Object.values(type.getFields())) {
      note(`${type.name}.${field.name}`, field);
      for (const argument of field.args ?? []) note(`${type.name}.${field.name}(${argument.name})`, argument);
    }
  }
  if (isEnumType(type)) for (const value of type.getValues()) note(`${type.name}.${value.name}`, value);
}

for (const line of broken) console.error(`breaks the contract: ${line}`);
for (const path of undescribed) console.error(`has no description: ${path}`);
const failed = broken.length + undescribed.length;
console.log(failed ? `${failed} problems in schema/graphql/public.graphql` : 'the public schema keeps the contract');
process.exit(failed ? 1 : 0);
