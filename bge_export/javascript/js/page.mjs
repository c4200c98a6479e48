// Runs a client in a page: fetches one request after another from the server that it came from, and posts the answers.
// A page that a person opened says who it is first; one in a browser that was started for it needs no name.

import { Clients, captureConsole, reason } from './client.mjs';

const base = new URL('../', import.meta.url);
const state = document.getElementById('state');
const table = document.getElementById('table');
const logs = captureConsole();
const served = new URL(location.href).searchParams.has('served');
const page = served ? (sessionStorage.page ??= crypto.getRandomValues(new Uint32Array(2)).join('-')) : 'own';
const clients = new Clients(({ library }) => import(library));

function at(name) {
  return new URL(`${name}?page=${page}`, base);
}

async function post(name, value) {
  await fetch(at(name), { method: 'POST', body: JSON.stringify(value) });
}

async function adapter() {
  return Boolean(await navigator.gpu?.requestAdapter().catch(() => null));
}

function show({ rows }) {
  sessionStorage.rows = JSON.stringify(rows);
  table.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement('tr');
      row.append(...cells.map((cell) => Object.assign(document.createElement('td'), { textContent: cell })));
      return row;
    }),
  );
  return {};
}

async function answer(request) {
  if (request.op === 'show') return show(request);
  const webgpu = request.op === 'open' && request.options.device === 'webgpu';
  if (webgpu && !(await adapter())) throw Error('this browser has no WebGPU adapter');
  return await clients.answer(request);
}

addEventListener('unhandledrejection', (event) => {
  post('answer', { id: null, error: `unhandled rejection: ${reason(event.reason)}`, logs });
});

if (served) {
  if (sessionStorage.rows) show({ rows: JSON.parse(sessionStorage.rows) });
  await post('hello', { page, agent: navigator.userAgent, webgpu: await adapter() });
}
for (let count = 1; ; ) {
  const response = await fetch(at('next'));
  if (response.status === 204) continue; // nothing to do yet
  const request = await response.json();
  state.textContent = `${request.title ?? ''} Request ${count++}: ${request.op}`;
  if (request.op === 'reload') {
    // Each version gets a fresh page: they share globals.
    await post('answer', { id: request.id });
    location.reload();
    break;
  }
  if (request.op === 'end') {
    await post('answer', { id: request.id });
    state.textContent = 'Done. This page can be closed.';
    break;
  }
  try {
    await post('answer', { id: request.id, ...(await answer(request)) });
  } catch (error) {
    await post('answer', { id: request.id, error: reason(error), logs });
  }
}
