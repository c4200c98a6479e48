// One client, whatever runs it: opens a model folder with a Transformers.js that the caller imported, and answers
// requests about it. Nothing here knows Node, Deno or a browser. Each request may name a slot: models in several are
// open beside each other in one library.
//
//   open      {models, name, options, pooling, normalize, settings} -> {version, files}
//   tokenize  {texts}                                        -> {ids}      with the client's own tokenizer
//   run       {input_ids, attention_mask, token_type_ids}    -> {outputs}  through the client's own model class
//   embed     {text, by_hand}                                -> {dims, values}  the client's whole pipeline
//   time      {input_ids, …, least}                          -> {seconds}  of a run through the model class
//
// Values travel as base64 of float32, little endian, with their dimensions. Nothing is pooled here.

export class Clients {
  // `load` imports the library that a request names; once, whatever later ones name.
  constructor(load) {
    this.load = load;
    this.library = null;
    this.opened = new Map();
  }

  async answer(request) {
    const slot = request.slot ?? 0;
    if (request.op === 'open') {
      this.library ??= await this.load(request);
      this.opened.set(slot, new Client(this.library));
    }
    return await this.opened.get(slot).answer(request);
  }
}

class Client {
  constructor(library) {
    this.library = library;
    this.loaded = [];
  }

  async open({ models, name, options, pooling, normalize, settings }) {
    const { env, pipeline } = this.library;
    env.allowLocalModels = true; // false by default in browsers from version 3 on
    env.allowRemoteModels = false;
    env.localModelPath = models;
    env.useBrowserCache = false; // it would keep an earlier export's file
    for (const [name, value] of Object.entries(settings.env ?? {})) env[name] = value;
    for (const [name, value] of Object.entries(settings.wasm ?? {})) env.backends.onnx.wasm[name] = value;
    this.pooling = pooling;
    this.normalize = normalize;
    const progress_callback = ({ status, file }) => status === 'done' && this.loaded.push(file);
    this.pipe = await pipeline('feature-extraction', name, { ...options, progress_callback });
    return { version: env.version, files: this.loaded };
  }

  async tokenize({ texts }) {
    const ids = [];
    for (const text of texts) {
      const { input_ids } = await this.pipe.tokenizer(text, { padding: true, truncation: true });
      ids.push(Array.from(input_ids.data, Number));
    }
    return { ids };
  }

  feed({ names, dims, arrays }) {
    const { Tensor } = this.library;
    return Object.fromEntries(
      names.map((name) => [name, new Tensor('int64', BigInt64Array.from(arrays[name], BigInt), dims)]),
    );
  }

  async run(request) {
    const { outputs } = request;
    const given = await this.pipe.model(this.feed(request));
    const found = {};
    for (const name of outputs) {
      const tensor = given[name];
      if (tensor === undefined) throw Error(`the client gave ${Object.keys(given)}, and no ${name}`);
      found[name] = tensor.type === 'float32' ? packed(tensor) : { type: tensor.type };
    }
    return { outputs: found };
  }

  async embed({ text, by_hand }) {
    const pooling = this.pooling === 'last' ? 'last_token' : this.pooling;
    const tensor = await this.pipe(text, by_hand ? { pooling: 'none' } : { pooling, normalize: this.normalize });
    if (tensor.type !== 'float32') throw Error(`the pipeline gave ${tensor.type}, not float32`);
    return packed(tensor);
  }

  // One run that is not timed, then the median of those that follow until `least` seconds have passed.
  async time({ least, ...request }) {
    const feed = this.feed(request);
    await this.pipe.model(feed);
    const times = [];
    for (const begin = performance.now(); performance.now() - begin < 1e3 * least || times.length === 0; ) {
      const before = performance.now();
      await this.pipe.model(feed);
      times.push((performance.now() - before) / 1e3);
    }
    times.sort((a, b) => a - b);
    const middle = times.length / 2;
    return { seconds: (times[Math.ceil(middle) - 1] + times[Math.floor(middle)]) / 2 };
  }

  async answer(request) {
    if (!['open', 'tokenize', 'run', 'embed', 'time'].includes(request.op)) throw Error(`no such request: ${request.op}`);
    return await this[request.op](request);
  }
}

function packed({ type, dims, data }) {
  return { type, dims: Array.from(dims), values: encode(data) };
}

function encode(values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

// What went wrong, in words: a failing wasm build of version 3 throws a bare number.
export function reason(error) {
  if (typeof error === 'number') return `onnxruntime-web threw the bare number ${error}, which says nothing`;
  return String(error?.message ?? error);
}

// What a library prints must not mix with the answers; the last lines are kept to explain a failure.
export function captureConsole() {
  const lines = [];
  for (const name of ['log', 'info', 'debug', 'warn', 'error']) {
    console[name] = (...parts) => {
      lines.push(parts.map((part) => String(part?.message ?? part)).join(' ').slice(0, 500));
      lines.splice(0, lines.length - 20);
    };
  }
  return lines;
}
