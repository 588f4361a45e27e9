import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deflateSync } from 'node:zlib';
import { load } from './load.mjs';

const { plain, signed, chance, withUnit, side, sideClass, verdict, named, cut, asCsv, unpack, matrixAt } = load(['unpack', 'draw', 'tables', 'save'], ['plain', 'signed', 'chance', 'withUnit', 'side', 'sideClass', 'verdict', 'named', 'cut', 'asCsv', 'unpack', 'matrixAt']);

test('numbers have three digits, a minus sign, and say when they are none', () => {
  assert.deepEqual([0, 1.23456, -0.5, 12345, 1e-5, -2e9, NaN].map(plain), ['0', '1.23', '−0.500', '12345', '1.00e-5', '−2.00e+9', 'not measured']);
  assert.deepEqual([0.5, -0.5, 0].map(signed), ['+0.500', '−0.500', '0']);
  assert.deepEqual([0.0004, 0.0312].map(chance), ['<0.001', '0.031']);
  assert.equal(withUnit(-2, { unit: 'nats' }), '−2.00 nats');
  assert.equal(withUnit(NaN, { unit: 'nats' }), 'not measured');
});

test('the side of an effect is by the sense of its metric, and rounding is no effect', () => {
  const loss = { sense: 1 }, lead = { sense: -1 }, kl = { sense: 0 };
  assert.deepEqual([loss, lead, kl].map((metric) => side(metric, 0.4)), ['helps', 'hurts', 'matters']);
  assert.deepEqual([loss, lead, kl].map((metric) => side(metric, -0.4)), ['hurts', 'helps', 'matters']);
  assert.deepEqual([loss, lead, kl].map((metric) => sideClass(metric, 1e-8)), Array(3).fill('no-effect'));
});

test('a verdict names a side only where the head is shown to have an effect', () => {
  const state = (mean, shown) => ({ meanOf: () => mean, claimOf: () => ({ shown }) });
  assert.deepEqual([state(1, true), state(1, false), state(-1, true), state(0, false)].map((each) => verdict(each, { sense: 1 }, [0, 0, ''])), ['helps', 'unsure', 'hurts', 'no effect']);
});

test('heads and tokens have their names', () => {
  assert.equal(named([3, 1, '']), 'L3H1');
  assert.equal(named([3, 1, 'cross']), 'cross.L3H1');
  assert.equal(cut(' a long token', 6), 'a lon…');
  assert.equal(cut(' ', 6), ' ');
});

test('a CSV quotes what would break it', () => {
  assert.equal(asCsv([['a', 'b'], ['x,y', 'say "no"'], [1.5, 'line\nbreak']], ','), 'a,b\n"x,y","say ""no"""\n1.5,"line\nbreak"\n');
  assert.equal(asCsv([['x,y', 'a\tb']], '\t'), 'x,y\t"a\tb"\n');
});

const packed = (values, type) => ({ type, data: deflateSync(Buffer.from(values.buffer)).toString('base64') });

test('packed arrays come back', async () => {
  const numbers = new Float32Array([1.5, NaN, -3]);
  assert.deepEqual(await unpack(packed(numbers, 'f4')), numbers);
  const bytes = new Uint8Array([0, 255, 51]);
  assert.deepEqual(await unpack(packed(bytes, 'u1')), bytes);
});

test('a causal matrix is kept up to its diagonal, and comes back whole', () => {
  const whole = new Uint8Array([255, 0, 0, 0, 0, 0, 255, 51, 204, 0, 0, 255]);  // two of 3 × 3
  const expected = [1, 0, 0, 0.2, 0.8, 0, 0, 0, 1];
  matrixAt(whole, 1, 3, 3, true).forEach((value, at) => assert.ok(Math.abs(value - expected[at]) < 1e-6));
  assert.deepEqual([...matrixAt(new Uint16Array([65535, 0, 0, 65535]), 0, 2, 2, false)], [1, 0, 0, 1]);
});
