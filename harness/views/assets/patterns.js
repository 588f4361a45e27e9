// The patterns of the prompt that is shown. A pattern is { weights, queries, keys, causal }: the weights row by row, a
// token for each row and for each column, and whether no row looks ahead.

function patternsOf(state) {
  const { data } = state, slots = new Map(), unpacked = {};
  for (const { name, slots: kept } of data.stacks) kept.forEach(([layer, head], index) => slots.set(named([layer, head, name]), index));
  return async () => {
    const packed = data.patterns[state.prompt], prompt = data.prompts[state.prompt];
    if (!packed) return null;
    const arrays = await (unpacked[state.prompt] ||= unpackAll(packed));
    const make = (array, index, stack) => {
      const [queries, keys] = sidesOf(prompt, stack.name);
      return { weights: matrixAt(array, index, queries.length, keys.length, stack.causal), queries, keys, causal: stack.causal, stack: stack.name };
    };
    const whole = state.stack(data.stacks.length > 1 ? 'cross' : '');
    return {
      of: (head) => (slots.has(named(head)) ? make(arrays[head[2]], slots.get(named(head)), state.stack(head[2])) : null),
      rollout: arrays.rollout && make(arrays.rollout, 0, whole),
      mean: make(arrays.mean, 0, whole),
    };
  };
}

async function unpackAll(packed) {
  const { heads, ...others } = packed, arrays = {};
  for (const [name, values] of Object.entries({ ...heads, ...others })) arrays[name] = await unpack(values);
  return arrays;
}

// The tokens along the rows and along the columns: an encoder reads the source, cross attention reads it for the target.
function sidesOf(prompt, stack) {
  return [stack === 'encoder' ? prompt.source : prompt.tokens, stack === 'encoder' || stack === 'cross' ? prompt.source : prompt.tokens];
}
