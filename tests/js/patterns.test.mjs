import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { seen, units, withSink } = load(['unpack', 'draw', 'patterns'], ['seen', 'units', 'withSink']);

// <s> un happy dog: two tokens make a word; the first is special; the last is of a second sentence.
const side = { tokens: ['<s>', 'un', 'happy', 'dog'], words: ['<s>', 'unhappy', 'dog'], word: [0, 1, 1, 2], special: [0], second: [3] };
const weights = new Float32Array([1, 0, 0, 0, 0.5, 0.5, 0, 0, 0.2, 0.3, 0.5, 0, 0.4, 0.1, 0.2, 0.3]);
const shown = (view) => seen({ weights, rows: side, columns: side, causal: true, stack: '' }, { view: { level: 'token', special: true, part: 'all', ...view } });
const near = (values, expected) => {
  assert.equal(values.length, expected.length);
  expected.forEach((value, at) => assert.ok(Math.abs(values[at] - value) < 1e-6, `${at}: ${values[at]} is not ${value}`));
};
const rowSums = ({ weights: values, keys, queries }) => queries.map((_, row) => [...values.slice(row * keys.length, (row + 1) * keys.length)].reduce((sum, value) => sum + value, 0));

test('tokens are shown as they are', () => {
  near(shown({}).weights, [...weights]);
  assert.deepEqual(shown({}).queries.map(({ text }) => text), side.tokens);
});

test('words sum over keys and average over queries, so rows still sum to 1', () => {
  const merged = shown({ level: 'word' });
  near(merged.weights, [1, 0, 0, 0.35, 0.65, 0, 0.4, 0.3, 0.3]);
  near(rowSums(merged), [1, 1, 1]);
  assert.deepEqual(merged.keys[1].at, [1, 2]);
});

test('without special tokens what is left of each row sums to 1 again', () => {
  const left = shown({ special: false });
  near(left.weights, [1, 0, 0, 0.375, 0.625, 0, 1 / 6, 1 / 3, 0.5]);
  near(rowSums(left), [1, 1, 1]);
  near(rowSums(shown({ special: false, level: 'word' })), [1, 1]);
});

test('one sentence of a pair is a part of each row, not normalised', () => {
  const part = shown({ part: 'BA' });
  near(part.weights, [0.4, 0.1, 0.2]);
  assert.equal(part.causal, false);
  assert.deepEqual(units(side, { level: 'token', special: true, part: 'AB' }, 1).map(({ text }) => text), ['dog']);
});

test('a learnt sink takes what a row lacks, as a last column', () => {
  const two = { weights: new Float32Array([0.25, 0.25, 1, 0.5]), queries: [0, 1], keys: [{}, {}], stack: '' };
  near(withSink(two).weights, [0.25, 0.25, 0.5, 1, 0.5, 0]);
  assert.ok(withSink(two).keys[2].sink);
});
