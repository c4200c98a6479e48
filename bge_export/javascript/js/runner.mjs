// Runs a client in Node or Deno: one JSON request a line on standard input, one JSON answer a line on standard output.
// `open` also says which library to import, and which of its builds that is.

import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import nodeProcess from 'node:process';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { Clients, captureConsole, reason } from './client.mjs';

const { stdin, stdout } = nodeProcess;
const logs = captureConsole();
const sessions = []; // what reached ONNX Runtime, whatever the library says that it loaded
const clients = new Clients(load);

// The digest of a file or of bytes in memory; a file is read in parts, so that it adds nothing to the peak of memory.
function digest(model) {
  const hash = createHash('sha256');
  if (typeof model !== 'string') return hash.update(new Uint8Array(model.buffer ?? model)).digest('hex');
  const part = new Uint8Array(1 << 20);
  const file = openSync(model);
  for (let size; (size = readSync(file, part)) > 0; ) hash.update(part.subarray(0, size));
  closeSync(file);
  return hash.digest('hex');
}

// Notes the bytes and the provider of each session that the native ONNX Runtime opens, and sets its threads.
function watch(path, threads) {
  const runtime = createRequire(path)('onnxruntime-node');
  const { InferenceSession } = runtime;
  const create = InferenceSession.create.bind(InferenceSession);
  InferenceSession.create = async (model, ...rest) => {
    const options = rest.pop() ?? {};
    const session = await create(model, ...rest, { ...options, intraOpNumThreads: threads, interOpNumThreads: 1 });
    const [provider = 'cpu'] = options.executionProviders ?? [];
    sessions.push({ sha256: digest(model), provider: String(provider?.name ?? provider) });
    return session;
  };
  return runtime;
}

// `build` is native (the build for Node and Deno), wasm (the web build), or edge: the web build on a native ONNX Runtime
// that the host brings, as Supabase's does.
async function load({ library, threads, build }) {
  if (build === 'wasm') {
    globalThis.self = globalThis; // what the web builds look for …
    globalThis.process = undefined; // … and what makes them think of Node
  } else {
    const runtime = watch(library, threads);
    if (build === 'edge') globalThis[Symbol.for('onnxruntime')] = runtime;
  }
  return await import(pathToFileURL(library).href);
}

function usage() {
  const { heapUsed } = nodeProcess.memoryUsage();
  const { user, system } = nodeProcess.cpuUsage();
  return { heap_bytes: heapUsed, cpu_seconds: (user + system) / 1e6 };
}

async function answer(request) {
  if (request.op === 'usage') return usage();
  const found = await clients.answer(request);
  return request.op === 'open' ? { ...found, sessions: sessions.splice(0) } : found;
}

function write(value) {
  stdout.write(JSON.stringify(value) + '\n');
}

nodeProcess.on('unhandledRejection', (error) => {
  write({ id: null, error: `unhandled rejection: ${reason(error)}`, logs });
  nodeProcess.exit(1);
});

for await (const line of createInterface({ input: stdin })) {
  const request = JSON.parse(line);
  try {
    write({ id: request.id, ...(await answer(request)) });
  } catch (error) {
    write({ id: request.id, error: reason(error), logs });
  }
}
nodeProcess.exit(0);
