// Monaco asks for a worker by its language. They are files beside this one: no blob, no other host.
import type {} from 'monaco-editor';

self.MonacoEnvironment = {
  getWorker(_id, label) {
    const name = label === 'json' || label === 'graphql' ? label : 'editor';
    return new Worker(new URL(`./${name}.worker.js`, import.meta.url), { type: 'module', name });
  },
};
