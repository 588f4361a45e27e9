import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { layoutOf, symbol, shadeOf, strikes, turn, rowsOf, textWidth } = load(['scales', 'draw', 'scores', 'layouts', 'charts'], ['layoutOf', 'symbol', 'shadeOf', 'strikes', 'turn', 'rowsOf', 'textWidth']);

const points = (...means) => means.map((mean, series) => ({ series, mean, low: mean - 0.1, high: mean + 0.2 }));
const CHARTS = {
  dots: { kind: 'dots', series: ['occlusion', 'knockout'], rows: 'method', x: { label: 'rank correlation with the cause', unit: '' }, sharedX: true, panels: [
    { name: 'all tokens', rows: [{ label: 'rollout', points: points(0.5, -0.25) }, { label: 'gradient', points: points(0.1, 0.3) }] },
    { name: 'others', rows: [{ label: 'rollout', points: points(0.2, 0.9) }, { label: 'gradient', points: points(-0.6, 0) }] },
  ] },
  bars: { kind: 'bars', sense: 1, unit: 'nats', value: 'beyond', rows: 'pair', x: { label: 'beyond the sum' }, bars: [{ label: 'L0H0 + L1H0', value: -2, heads: [[0, 0, ''], [1, 0, '']] }, { label: 'L0H1 + L1H0', value: 1, heads: [[0, 1, ''], [1, 0, '']] }] },
  curves: { kind: 'curves', y: { label: 'effect on loss', unit: 'nats' }, panels: [{ x: { label: 'layer', values: [0, 1, 2] }, series: [{ name: 'all heads', values: [0, 2, -1], low: [-0.5, 1.5, -1.5], high: [0.5, 2.5, -0.5] }, { name: 'MLP', values: [1, null, 1] }], band: { name: 'random', low: [0, 0, 0], high: [1, 1, 1] } }] },
  'pairs-of-dots': { kind: 'pairs-of-dots', series: ['one', 'other'], x: { label: 'prompt' }, y: { label: 'loss', unit: 'nats' }, pairs: [[1, 2], [3, 1], [null, 2]] },
  heat: { kind: 'heat', scale: 'effect', sense: 1, unit: 'nats', value: 'change', axes: ['head', 'layer'], dot: 'sure', panels: [{ name: '', cells: '', rows: [0, 1], columns: [0, 1, 2], values: [[1, -2, 0.1], [null, 0.5, -0.1]], dots: [[0, 1]] }] },
};

for (const [kind, chart] of Object.entries(CHARTS)) {
  for (const width of [320, 640, 1060]) {
    test(`${kind} at ${width} pixels: everything inside, every value once`, () => {
      const { height, shapes, marks } = layoutOf(chart, width);
      const finite = (at) => Object.entries(at).every(([key, value]) => typeof value !== 'number' || Number.isFinite(value) || assert.fail(`${key} is ${value}`));
      assert.ok(shapes.every(({ at }) => finite(at)) && Number.isFinite(height));
      assert.ok(!shapes.some(({ at }) => typeof at.d === 'string' && at.d.includes('NaN')));
      for (const { at, text } of shapes.filter(({ tag, at }) => tag === 'text' && !at.transform)) {
        const wide = textWidth(text), left = { end: at.x - wide, middle: at.x - wide / 2 }[at['text-anchor']] ?? at.x;
        assert.ok(left >= -wide * 0.1 - 1 && left + wide <= width + wide * 0.1 + 1, `${text} at ${left}`);
        assert.ok(at.y > 0 && at.y <= height + 3, `${text} at ${at.y} of ${height}`);
      }
      for (const { x, y } of marks) assert.ok(x >= 0 && x <= width && y >= 0 && y <= height);
      const known = { dots: 8, bars: 2, curves: 5, 'pairs-of-dots': 5, heat: 6 }[kind];
      assert.equal(marks.length, known);
      assert.equal(new Set(marks.map(({ text }) => text())).size, known);
      assert.ok(marks.every(({ text }) => !/undefined|NaN|null/.test(text())));
    });
  }
}

test('panels stand side by side where there is room, on one scale, and below each other where there is none', () => {
  const at = (width) => layoutOf(CHARTS.dots, width).marks.map(({ x, y }) => [x, y]);
  const [wide, narrow] = [at(1060), at(360)];
  assert.equal(wide[0][1], wide[4][1]);
  assert.ok(narrow[4][1] > narrow[3][1]);
  const scale = (marks) => (marks[0][0] - marks[1][0]) / 0.75;  // of 0.5 and -0.25
  assert.ok(Math.abs((narrow[5][0] - narrow[4][0]) / 0.7 - scale(narrow)) < 1e-6, 'both panels have the scale of all values');
});

test('bars grow from zero to their own side', () => {
  const { shapes, marks } = layoutOf(CHARTS.bars, 500), [minus, plus] = shapes.filter(({ at }) => (at.class || '').startsWith('bar'));
  const zero = shapes.find(({ at }) => at.class === 'zero').at.x1;
  assert.ok(Math.abs(minus.at.x + minus.at.width - zero) < 1e-6 && Math.abs(plus.at.x - zero) < 1e-6);
  assert.ok(Math.abs(minus.at.width - 2 * plus.at.width) < 1e-6);
  assert.deepEqual([minus, plus].map(({ at }) => at.class), ['bar hurts', 'bar helps']);
  assert.deepEqual(marks[0].open, [[0, 0, ''], null]);
});

test('every series has a mark of its own shape and a line of its own dashes', () => {
  assert.equal(new Set([0, 1, 2, 3, 4, 5].map((series) => symbol(series, 0, 0).at.d)).size, 6);
  const lines = layoutOf(CHARTS.curves, 640).shapes.filter(({ at }) => 'data-series' in at), dash = ({ at }) => at.class.match(/ d\d/)[0];
  assert.equal(new Set(lines.map(dash)).size, 2);
});

test('the shade is the share of the largest, of attention its square root, and never negative', () => {
  assert.deepEqual(shadeOf({ scale: 'effect', sense: 1 }, -1, 4), { name: 'hurts', share: 0.25 });
  assert.deepEqual(shadeOf({ scale: 'effect', sense: 0 }, -1, 4), { name: 'matters', share: 0.25 });
  assert.deepEqual(shadeOf({ scale: 'attention' }, 0.25, 1), { name: 'attention', share: 0.5 });
  assert.deepEqual(shadeOf({ scale: 'score' }, -1, 4), { name: 'attention', share: 0 });
  assert.deepEqual(shadeOf({ scale: 'score' }, null, 4), { name: 'unknown', share: 0 });
});

test('what hurts is struck through, or what is negative where no side is known', () => {
  const struck = (sense, scale = 'effect') => [-1, -0.01, 1].map((value) => strikes({ sense, scale }, value, 1));
  assert.deepEqual(struck(1), [true, false, false]);
  assert.deepEqual(struck(-1), [false, false, true]);
  assert.deepEqual(struck(0), [true, false, false]);
  assert.deepEqual(struck(1, 'attention'), [false, false, false]);
});

test('a turned map keeps each head with its value, its dot and its name', () => {
  const wide = { ...CHARTS.heat, panels: [{ name: '', cells: '', rows: [0, 1], columns: Array.from({ length: 30 }, (_, layer) => layer), values: [0, 1].map((head) => Array.from({ length: 30 }, (_, layer) => layer + head / 10)), dots: [[1, 29]] }] };
  const read = (width) => layoutOf(wide, width).marks.map(({ text, open }) => text() + ' ' + open).sort();
  assert.deepEqual(read(358), read(1060));
  assert.ok(read(358).includes('L29H1: change +29.1 nats; sure 29,1,,'));
  assert.deepEqual(turn(wide.panels[0]).dots, [[29, 1]]);
});

test('many cells are one picture of pixels', () => {
  const size = 80, row = Array(size).fill(0.5), panel = { name: 'L0H0', head: [0, 0, ''], rows: Array(size).fill('a'), columns: Array(size).fill('b'), values: Array(size).fill(row) };
  const { shapes, marks } = layoutOf({ kind: 'heat', scale: 'attention', value: 'weight', axes: ['query', 'key'], panels: [panel] }, 700);
  assert.equal(shapes.filter(({ tag }) => tag === 'pixels').length, 1);
  assert.equal(shapes.find(({ tag }) => tag === 'pixels').cells.length, size);
  assert.equal(marks.length, size * size);
  assert.equal(marks[size].text(), 'L0H0: “a” (1) looks at “b” (0), weight 0.500');
});

test('the data of every kind is a table whose rows are as long as its titles', () => {
  for (const chart of Object.values(CHARTS)) {
    const [titles, ...rows] = rowsOf(chart);
    assert.ok(rows.length && rows.every((row) => row.length === titles.length), chart.kind);
    assert.ok(rows.flat().every((value) => value !== null && value !== undefined));
  }
  assert.deepEqual(rowsOf(CHARTS.heat)[2], ['', 0, 1, -2]);
  assert.deepEqual(rowsOf(CHARTS['pairs-of-dots'])[3], [2, '', 2]);
});
