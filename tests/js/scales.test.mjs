import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { niceTicks, tickText, extent, scaleOf, textWidth, fitted, wrapped, every, nearest, nextMark } = load(['scales'], ['niceTicks', 'tickText', 'extent', 'scaleOf', 'textWidth', 'fitted', 'wrapped', 'every', 'nearest', 'nextMark']);

test('ticks stand at round values inside the ends', () => {
  assert.deepEqual(niceTicks(-1, 1, 4), [-1, -0.5, 0, 0.5, 1]);
  assert.deepEqual(niceTicks(0, 3.7, 4), [0, 1, 2, 3]);
  assert.deepEqual(niceTicks(0.00012, 0.00061, 3), [0.0002, 0.0004, 0.0006]);
  for (const [low, high] of [[-7.3, 2.9], [0, 1e-7], [1e6, 3e6], [-0.3, -0.1]]) {
    for (const most of [2, 4, 6]) {
      const ticks = niceTicks(low, high, most);
      assert.ok(ticks.length >= 1 && ticks.length <= most + 2, `${ticks}`);
      assert.ok(ticks.every((tick) => tick >= low - 1e-9 * Math.abs(low) && tick <= high + 1e-9 * Math.abs(high)), `${ticks}`);
      assert.ok(!ticks.some((tick) => Object.is(tick, -0)));
    }
  }
});

test('a tick has a minus sign and no noise of floating point', () => {
  assert.equal(tickText(niceTicks(-0.3, 0.3, 6)[0]), '−0.3');
  assert.equal(tickText(0), '0');
});

test('the ends of an axis are those of the data, with zero where the sign matters, and never the same', () => {
  assert.deepEqual(extent([2, 5], true), [0, 5]);
  assert.deepEqual(extent([2, 5], false), [2, 5]);
  assert.deepEqual(extent([-3, null, NaN, -1], true), [-3, 0]);
  assert.deepEqual(extent([4, 4], false), [0, 8]);
  assert.deepEqual(extent([0, 0], true), [0, 1]);
  assert.deepEqual(extent([], true), [0, 1]);
  assert.deepEqual(extent([null], false), [0, 1]);
});

test('a scale keeps order and room at both ends, also downwards', () => {
  const across = scaleOf([-2, 2], 100, 200, 10), down = scaleOf([0, 1], 300, 100, 5);
  assert.deepEqual([-2, 0, 2].map(across), [110, 150, 190]);
  assert.deepEqual([0, 1].map(down), [295, 105]);
});

test('a text is cut to its room with an ellipsis, letter by letter and not byte by byte', () => {
  assert.equal(fitted('gave', 100), 'gave');
  assert.equal(fitted(' gave', 100), 'gave');
  assert.equal(fitted(' ', 100), ' ');
  const cut = fitted('integrated_gradients', 60);
  assert.ok(cut.endsWith('…') && textWidth(cut) <= 60 && cut.length > 5, cut);
  assert.match(fitted('👩👩👩👩👩👩', 40), /^(👩)+…$/u);
  assert.ok(textWidth('日本語') === 36 && textWidth('abc') < 36);
});

test('a text is broken between words and nothing is lost', () => {
  const label = 'effect of both less the sum of each, loss, nats per target token', lines = wrapped(label, 150);
  assert.equal(lines.join(' '), label);
  assert.ok(lines.length > 2 && lines.every((line) => textWidth(line) <= 150));
  assert.deepEqual(wrapped('unbreakable', 10), ['unbreakable']);
});

test('labels are thinned to the room they need', () => {
  assert.deepEqual([every(10, 12), every(13, 12), every(40, 12), every(10, 100)], [1, 2, 4, 1]);
});

test('the nearest mark within reach, and the next one in a direction', () => {
  const marks = [[0, 0], [10, 0], [20, 1], [10, 12], [10, 30]].map(([x, y]) => ({ x, y }));
  assert.equal(nearest(marks, 11, 2, 5), marks[1]);
  assert.equal(nearest(marks, 100, 100, 5), null);
  assert.equal(nextMark(marks, marks[0], [0, 1]), marks[1]);
  assert.equal(nextMark(marks, marks[1], [0, 1]), marks[2]);
  assert.equal(nextMark(marks, marks[1], [1, 0]), marks[3]);
  assert.equal(nextMark(marks, marks[3], [-1, 0]), marks[1]);
  assert.equal(nextMark(marks, marks[0], [0, -1]), null);
});
