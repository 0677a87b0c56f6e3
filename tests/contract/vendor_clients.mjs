// The Node half of vendor_clients.py, which starts the emulator and calls this.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const { EMULATOR_URL, EMULATOR_MEDIA_URL, VENDOR_MODULES } = process.env;
const T2I = 'wavespeed-ai/qwen-image/text-to-image-lora';
const EDIT = 'wavespeed-ai/qwen-image/edit-lora';

const { Client } = createRequire(path.join(VENDOR_MODULES, 'x.js'))('wavespeed');
const client = new Client('right', { baseUrl: EMULATOR_URL });
const fast = { pollInterval: 0.05 };

const run = await client.run(T2I, { prompt: 'a fox', size: '512*512' }, fast);
assert.ok(run.outputs[0].startsWith(EMULATOR_MEDIA_URL));
assert.equal((await client.run(T2I, { prompt: 'a fox' }, { enableSyncMode: true })).outputs.length, 1);
const source = await client.upload('fox.png');
assert.ok(source.startsWith(EMULATOR_MEDIA_URL));
assert.equal((await client.run(EDIT, { prompt: 'make it snow', image: source }, fast)).outputs.length, 1);
const failed = await client.runNoThrow(T2I, { prompt: '[moderated]' }, fast);
assert.equal(failed.outputs, null);
assert.match(failed.detail.error?.message ?? JSON.stringify(failed), /moderation/);

const cli = path.join(VENDOR_MODULES, '@wavespeed', 'cli', 'dist', 'cli.js');
const wavespeed = (...words) => execFileSync(process.execPath, [cli, ...words], { encoding: 'utf8' });
const json = (...words) => JSON.parse(wavespeed(...words, '--json'));

wavespeed('config', '--base-url', EMULATOR_URL);
const made = json('run', T2I, '-p', 'a fox', '-i', 'seed=4', '--download', '--output-dir', 'out');
assert.equal(made.saved.length, 1);
assert.equal(fs.readFileSync(made.saved[0]).subarray(0, 3).toString('hex'), 'ffd8ff');
const history = json('history', '--limit', '100');
assert.equal(history.page, 1);
assert.equal(history.items.length, 5);
assert.equal(history.items[0].inputs.seed, 4);
assert.equal(json('history', '--status', 'failed').items.length, 1);
assert.equal(json('history', '--model', EDIT).items.length, 1);
assert.match(wavespeed('history'), /a fox/);
const id = history.items[0].id;
assert.equal(json('show', id).status, 'completed');
assert.equal(json('price', T2I, '-p', 'x').unit_price, 0.025);
assert.equal(json('balance').balance, 1000 - 4 * 0.025);
const uploaded = json('upload', 'fox.png');
assert.ok(uploaded.url.startsWith(EMULATOR_MEDIA_URL));
assert.equal(json('download', uploaded.url, '-o', 'back.png').saved.length, 1);
assert.ok(fs.readFileSync('back.png').equals(fs.readFileSync('fox.png')));
assert.equal(json('models', 'qwen').length, 10);
assert.ok(json('schema', T2I).required.includes('prompt'));
assert.deepEqual(json('delete', id).deleted, [id]);
assert.equal(json('history').items.length, 4);
assert.notEqual(spawnSync(process.execPath, [cli, 'show', id, '--json']).status, 0);
