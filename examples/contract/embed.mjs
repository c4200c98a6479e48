// Embeds texts as a folder of bge-export says: node embed.mjs FOLDER [query|document] < texts > vectors.
// It needs the npm packages onnxruntime-node and @huggingface/tokenizers.

import { readFileSync } from 'node:fs';
import ort from 'onnxruntime-node';
import { Tokenizer } from '@huggingface/tokenizers';

const [folder, use] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(`${folder}/${name}`, 'utf-8'));
const { embedding, text, tokens, files } = read('embedding.json');
const file = files.find((one) => one.target === 'onnx-fp32');
const states = Object.keys(file.outputs).find((name) => file.outputs[name] === 'token states');
const tokenizer = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'));
const session = await ort.InferenceSession.create(`${folder}/${file.file}`);

// This tokenizer does not truncate: the special tokens at the end have to stay.
function cut(ids) {
  const end = tokens.after.map((one) => one.id);
  return ids.length <= text.max_tokens ? ids : [...ids.slice(0, text.max_tokens - end.length), ...end];
}

async function embed(line) {
  const ids = cut(tokenizer.encode((use ? text.prompts[use] : '') + JSON.parse(line)).ids);
  const row = (value) => new ort.Tensor('int64', BigInt64Array.from(ids, value), [1, ids.length]);
  const given = { input_ids: row(BigInt), attention_mask: row(() => 1n), token_type_ids: row(() => 0n) };
  const output = (await session.run(Object.fromEntries(file.inputs.map((name) => [name, given[name]]))))[states];

  const state = (at) => Array.from(output.data.subarray(at * embedding.width, (at + 1) * embedding.width));
  const sum = (a, b) => a.map((value, i) => value + b[i]);
  const mean = () => ids.map((_, at) => state(at)).reduce(sum).map((value) => value / ids.length);
  const vector = { cls: () => state(0), last: () => state(ids.length - 1), mean }[embedding.pooling]();
  return embedding.normalize ? vector.map((one) => one / Math.hypot(...vector)) : vector;
}

for (const line of readFileSync(0, 'utf-8').split('\n').filter(Boolean)) {
  console.log(JSON.stringify(await embed(line)));
}
