// The patterns of the prompt that is shown: by token or by word, with special tokens or without.
//
// A pattern is { weights, queries, keys, causal, stack, limited }: the weights row by row, the unit of each row and
// column, and whether no row looks ahead. A unit is { text, at, special, second }: `at` are its positions.

function patternsOf(state) {
  const { data } = state, slots = new Map(), unpacked = {};
  for (const { name, slots: kept } of data.stacks) kept.forEach(([layer, head], index) => slots.set(named([layer, head, name]), index));
  return async (number = state.prompt) => {
    const packed = data.patterns[number], prompt = data.prompts[number];
    if (!packed) return null;
    const arrays = await (unpacked[number] ||= unpackAll(packed, data.norms[number] || {}, data.others[number] || {}));
    const make = (array, index, stack, norms = null) => {
      const [rows, columns] = sidesOf(prompt, stack.name);
      const kept = matrixAt(array, index, rows.tokens.length, columns.tokens.length, stack.causal);
      const weights = norms ? valueWeighted(kept, norms) : kept;
      const pattern = seen({ weights, rows, columns, causal: stack.causal, stack: stack.name }, state);
      return data.sink && !norms && state.view.special && state.view.part === 'all' && state.view.sink ? withSink(pattern) : pattern;
    };
    const whole = state.stack(data.stacks.length > 1 ? 'cross' : '');
    return {
      of: (head) => (slots.has(named(head)) ? make(arrays[head[2]], slots.get(named(head)), state.stack(head[2])) : null),
      values: (head) => {
        const norms = slots.has(named(head)) && normsAt(arrays.norms, prompt, head, slots.get(named(head)));
        return norms ? make(arrays[head[2]], slots.get(named(head)), state.stack(head[2]), norms) : null;
      },
      // As a view of many heads draws it: weighted by the values where that is chosen and they were kept, up to 1.
      shown(head) {
        const moved = state.how === 'values' ? this.values(head) : null, most = moved && largest(moved.weights);
        return most ? { ...moved, weights: moved.weights.map((weight) => weight / most) } : this.of(head);
      },
      // The same head of the other model of a comparison; null where the page does not hold it.
      other: (head) => (slots.has(named(head)) && arrays.others[head[2]] ? make(arrays.others[head[2]], slots.get(named(head)), state.stack(head[2])) : null),
      rollout: arrays.rollout && make(arrays.rollout, 0, whole),
      mean: make(arrays.mean, 0, whole),
    };
  };
}

async function unpackAll(packed, norms, others) {
  const { heads, ...means } = packed, arrays = { norms: {}, others: {} };
  for (const [name, values] of Object.entries({ ...heads, ...means })) arrays[name] = await unpack(values);
  for (const [name, values] of Object.entries(norms)) arrays.norms[name] = await unpack(values);
  for (const [name, values] of Object.entries(others)) arrays.others[name] = await unpack(values);
  return arrays;
}

// The norms of the values of a kept head, one for each key; null where they were not kept.
function normsAt(norms, prompt, [, , stack], slot) {
  if (!norms[stack]) return null;
  const width = sidesOf(prompt, stack)[1].tokens.length, mine = norms[stack].subarray(slot * width, (slot + 1) * width);
  return mine.every(Number.isFinite) ? mine : null;
}

// With a learnt sink in the softmax rows of tokens sum to less than 1; what they lack is a column of its own, the last.
function withSink({ weights, queries, keys, stack }) {
  const wide = new Float32Array(queries.length * (keys.length + 1));
  queries.forEach((_, query) => {
    const row = weights.subarray(query * keys.length, (query + 1) * keys.length);
    wide.set(row, query * (keys.length + 1));
    wide[query * (keys.length + 1) + keys.length] = Math.max(0, 1 - row.reduce((sum, weight) => sum + weight, 0));
  });
  return { weights: wide, queries, keys: [...keys, { text: 'sink', at: [], sink: true }], causal: false, stack };
}

// The texts along the rows and along the columns: an encoder reads the source, cross attention reads it for the target.
function sidesOf(prompt, stack) {
  return [stack === 'encoder' ? prompt.source : prompt, stack === 'encoder' || stack === 'cross' ? prompt.source : prompt];
}

// The units of a text: its tokens or its words, without special ones if these are hidden, and without the first token
// if the sink is.
function units(side, { level, special, part, sink = true }, whose) {
  const all = level === 'word' ? side.words.map((text) => ({ text, at: [] })) : side.tokens.map((text, at) => ({ text, at: [at] }));
  if (level === 'word') side.word.forEach((number, at) => all[number].at.push(at));
  for (const unit of all) {
    unit.special = unit.at.every((at) => side.special.includes(at));
    unit.second = unit.at.some((at) => side.second.includes(at));
  }
  const wanted = part === 'all' || whose === null ? null : part[whose] === 'B';
  return all.filter((unit) => (special || !unit.special) && (sink || !unit.at.includes(0)) && (wanted === null || unit.second === wanted));
}

// Summed over the keys of a word and averaged over its queries, so that rows still sum to 1. Without special tokens, or
// without the sink, what is left of a row is made to sum to 1 again; of two sentences only the chosen part is shown, not
// normalised.
function seen({ weights, rows, columns, causal, stack }, state) {
  const view = { ...state.view, sink: state.view.sink !== false || !causal };
  if (view.level === 'token' && view.special && view.part === 'all' && view.sink) return { weights, queries: units(rows, view, null), keys: units(columns, view, null), causal, stack };
  const queries = units(rows, view, stack ? null : 0), keys = units(columns, view, stack ? null : 1), width = columns.tokens.length;
  const whole = view.special && view.sink ? null : units(columns, { ...view, part: 'all' }, null);
  return { weights: mergedWeights(weights, width, queries, keys, whole), queries, keys, causal: causal && view.part === 'all', stack };
}

// With `whole`, each row is divided by its sum over those keys.
function mergedWeights(weights, width, queries, keys, whole) {
  const merged = new Float32Array(queries.length * keys.length);
  const between = (query, key) => query.at.reduce((sum, q) => sum + key.at.reduce((inner, k) => inner + weights[q * width + k], 0), 0) / query.at.length;
  queries.forEach((query, row) => {
    const total = whole ? whole.reduce((sum, key) => sum + between(query, key), 0) : 1;
    keys.forEach((key, column) => { merged[row * keys.length + column] = total > 0 ? between(query, key) / total : 0; });
  });
  return merged;
}

// The mean share of attention that the first token gets from those after it; 0 of a pattern that is not causal.
function sinkShare({ weights, queries, keys, causal }) {
  if (!causal || queries.length < 2 || !keys[0].at.includes(0)) return 0;
  let sum = 0;
  for (let query = 1; query < queries.length; query++) sum += weights[query * keys.length];
  return sum / (queries.length - 1);
}

// Each weight times the norm of its key's value: what is moved from a token, and not how much it is looked at.
function valueWeighted(weights, norms) {
  return weights.map((weight, index) => weight * norms[index % norms.length]);
}
