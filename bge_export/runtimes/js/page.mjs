// Runs a client in a page: fetches one request after another from the server that it came from, and posts the answers.

import { Client, captureConsole, reason } from './client.mjs';

const base = new URL('../', import.meta.url);
const state = document.getElementById('state');
const logs = captureConsole();
let client = null;

async function answer(request) {
  if (request.op !== 'open') return await client.answer(request);
  if (request.options.device === 'webgpu' && !(await navigator.gpu?.requestAdapter())) {
    throw Error('this browser has no WebGPU adapter');
  }
  client = new Client(await import(request.library));
  return await client.open(request);
}

async function post(value) {
  await fetch(new URL('answer', base), { method: 'POST', body: JSON.stringify(value) });
}

addEventListener('unhandledrejection', (event) => {
  post({ id: null, error: `unhandled rejection: ${reason(event.reason)}`, logs });
});

for (let count = 1; ; ) {
  const response = await fetch(new URL('next', base));
  if (response.status === 204) continue; // nothing to do yet
  const request = await response.json();
  state.textContent = `Request ${count++}: ${request.op}`;
  try {
    await post({ id: request.id, ...(await answer(request)) });
  } catch (error) {
    await post({ id: request.id, error: reason(error), logs });
  }
}
