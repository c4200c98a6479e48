// Embeds texts with Transformers.js in Node: `transformers_js.mjs LIBRARY JOB`; the vectors go to standard output as JSON.
import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { pathToFileURL } from 'node:url';

const [library, path] = process.argv.slice(2);
const { env, pipeline } = await import(pathToFileURL(library).href);
const { folder, dtype, pooling, texts } = JSON.parse(readFileSync(path, 'utf-8'));

env.localModelPath = dirname(folder);
env.allowRemoteModels = false;

const embed = await pipeline('feature-extraction', basename(folder), { dtype });
const rows = [];
for (const text of texts) {
  const output = await embed(text, { pooling, normalize: true });
  rows.push(Array.from(output.data));
}
console.log(JSON.stringify(rows));
